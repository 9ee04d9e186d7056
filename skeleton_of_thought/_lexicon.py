"""Words and what they ask for, in ten languages.

One class a line. `a b` is a phrase, `word*` is a stem, `^a` counts as the question's first words only. Chinese and
Japanese have no spaces: their entries are looked for anywhere, and may be regular expressions.
"""

from __future__ import annotations

__all__ = ["LEXICON", "STOPWORDS"]

STOPWORDS = {
    "en": "the a an is are was were do does did how what why which who when where can could should would to of for and "
    "in on my your i you me it with that this if write give explain some any from at be there",
    "de": "der die das den dem ein eine einen einem einer ist sind wie was warum welche welcher welches wer wann wo kann "
    "kannst soll sollte ich du mir mich mein meine für und auf mit nicht wenn man zu von im am schreibe erkläre gib es "
    "hat habe werden wird über beim zum zur bei nach sich wieso weshalb nenne",
    "fr": "le la les un une des du de est sont comment que quoi pourquoi quel quelle quels quelles qui quand où puis peut "
    "je tu vous mon ma mes pour et sur avec pas si on à dans écris explique donne il qu'est ce en au aux ne d'un d'une "
    "quelles comment suis faire combien moi",
    "es": "el la los las un una unos unas del de es son cómo qué por cuál cuáles quién cuándo dónde puedo puede yo tú mi "
    "mis para y en con no si se al escribe explica dame que lo como cuántos cuánto hay está sobre más",
    "it": "il lo la gli le un una uno del della dei delle di è sono come che cosa perché quale quali chi quando dove posso "
    "può io tu mio mia per e su con non se si a nel scrivi spiega dammi quanti quanto ci più nella cos'è in da quello",
    "pt": "o a os as um uma do da dos das de é são como que por quê qual quais quem quando onde posso pode eu meu minha "
    "para e em com não se no na ao escreva escreve explique explica me você mais uma quantos quanto há sobre porque",
    "nl": "de het een is zijn hoe wat waarom welke wie wanneer waar kan kun moet ik je mij mijn voor en op met niet als "
    "men te van in schrijf leg geef er heeft hebben worden wordt over bij naar hoeveel aan om ze zou",
}

LEXICON = {
    "en": """
many: several | various | different | main | major | key | some | few | a couple of | three | four | five | six | seven | eight | ten | most important | popular | common | typical | essential | each | every | all the | most | any | both | in terms of | ways in which | principal | primary | multiple | diverse | effective | respective | at least two | at least three | at least four | at least five
list: tip | tips | ways | ideas | examples | strateg* | suggestion | suggestions | reasons | benefit | benefits | advantages | factors | causes | effects | types | kinds | features | characteristics | challenges | recommendation | recommendations | practices | techniques | methods | aspects | components | principles | habits | risks | symptoms | signs | consequences | implications | trends | options | alternatives | things | qualities | skills | measures | criteria | mistakes | functions of | uses of | activities | hobbies | differences | similarities | drawbacks | disadvantages | dangers | solutions | theories | stages | areas | topics | items | questions to ask | best places | considerations | traits | elements | obstacles | resources | lessons | myths | pitfalls | arguments | stakeholders | concerns | forms | applications | requirements | origins | beliefs | themes | limits | limitations | trade-offs | tradeoffs | strengths | weaknesses | metrics | indicators | merits | downsides | upsides | rights | roles | functions | properties | categories | genres | styles | devices | sources | uses | drivers | barriers | threats | problems | issues | contributions | developments | innovations | achievements | layers | parts | symbols | customs | festivals | perspectives | approaches | tactics | countermeasures | remedies | standards | duties | responsibilities | explanations | hypotheses | details | precautions | incentives
aspects: in terms of | with respect to | with regard to | regarding | as to | considering | covering | including | addressing | focusing on | taking into account | for each | of each | each of | describe each | explain each | and how each | respectively | from the perspective of | from the point of view | in relation to | across | such as | as well as | give an example of each | an example for each | along with
advice: advice | advise | guidance | what can i do | what should i do | what could | should i react | watch out for | look for | keep in mind | pay attention | improve* | overcome | cope | deal with | prevent* | prepare for | reduce* | manage* | avoid* | handle | boost | get better | become | encourage | help me with | maintain* | protect* | support | achieve | increase* | stay | motivat* | balance | choose | respond to | treat | get over | increase | get rid of
pros: pros and cons | advantages and disadvantages | benefits and | strengths and weaknesses | for and against | good and bad | pros | cons | merits | upsides and downsides | benefits and risks | benefits and drawbacks | advantages or disadvantages | costs and benefits | weigh up | trade-offs | speaks for
diff: difference | differences | differ | compare | comparison | versus | vs | distinguish | distinction | compared | similarities and differences | contrast | distinguishes | similarities | compare and contrast | differs | contrasts
howto: how to | how can | how do | how should | how could | how would | how might | best way | good way
why: why | how come | what causes | reason for | reasons for
whatif: what if | what would happen | suppose that | suppose | imagine that | had never | what might have | what would be different | how would the world | if humans | hypothetical | would have happened | would have changed
discuss: discuss | analyze | analyse | evaluate | assess | examine | explore | critically | critique | weigh | consider | reflect on | investigate | debate | review the
mechanism: mechanism | how does it work | works | work ? | concept of | theory of | theorem | principle of | principle behind | process of | process by which | what happens | happens when | analogy | meaning of | life cycle | phenomenon | in simple terms | to a child | to a five | intuition | how is it possible | come about
explain: explain | describe | discuss | tell me about | overview | elaborate | analyze | analyse | evaluate | explore | what is known about | introduce me | outline | examine | assess | interpret | summarise the history | give an overview | illustrate | outline the | introduce | clarify
plan: plan | itinerary | checklist | programme | timetable | packing list | reading list | rules for | campaign | lesson | workshop | strategy | guide | routine | curriculum | syllabus | agenda | roadmap | workout plan | program for | meal plan | framework | guidelines | policy | scheme | concept for | risk register | exhibition | survey | set of | set of questions | interview questions | topics for | recommendations for | schedule | menu | project plan | business plan | training plan | study plan | action plan | outline for | unit on
write: write | compose | draft | create | generate | make up | come up with | design | craft | invent
create: create | design | develop | devise | propose | build | prepare | set up | draw up | come up with | brainstorm | plan | suggest | outline | produce | generate | construct
story: story | stories | poem | poems | poetry | haiku | song | lyrics | novel | tale | joke | jokes | limerick | dialogue | screenplay | scene | rap | sonnet | monologue | fable | fairy tale | diary | verse | ballad | chapter | fiction | narrat* | rhyme | eulogy | villanelle | plot | first person | toast | character | prompt | journal entry
letter: letter | email | e-mail | message to | cover letter | slogan | tweet | caption | headline | headlines | subject line | press release | invitation | speech | bio | tagline | advertisement | product description | memo | linkedin post | text message | resignation | thank-you note | announcement | obituary | reference letter | complaint | note to | review | proposal | abstract | script for | advert | ad | apology | cover story | personal statement | condolence | testimonial | sales pitch | newsletter | post for | instagram post | facebook post | brochure | flyer | disclaimer
essay: essay | article | blog post | paragraph | report | blog | op-ed | paper on | literature review | words essay | policy brief | research proposal | research paper | introduction of | conclusion of | white paper | apa style | cite
paper: thesis | dissertation | academic | case study | agreement | contract | pitch | introduction | conclusion | sections | sources | references | tone | style | audience
code: code | function | program | script | regex | regular expression | sql | query | algorithm | implement* | class | html | css | bug | compiler | compiles | compiling | to compile | not compile | won't compile | unit test | method that | bash | dockerfile | debug | stack trace | snippet | one-liner | refactor | cli | parser | endpoint | pseudocode | macro | formula | shell command | command line | powershell | unit tests | makefile | kubernetes | recursive | data structure | linked list | binary tree | hash map | time complexity | dataframe | data frame | pull request | smart contract | web scraper | command-line
tech: python | java | javascript | typescript | c++ | c# | php | ruby | rust | golang | kotlin | swift | react | django | android | ios | linux | ubuntu | git | github | docker | kubernetes | mysql | postgres | array | string | variable | loop | server | database | table | file | files | api | json | excel | jquery | node | npm | exception | error | install | windows | bash | wordpress | button | app | pandas | numpy | list | tuple | dict | pointer | thread | latex
device: account | kindle | phone | iphone | ipad | ipod | excel | word document | google | facebook | instagram | whatsapp | youtube | spotify | netflix | gmail | outlook | browser | chrome | firefox | screen | keyboard | laptop | computer | wi-fi | wifi | router | password | settings | download | upload | disable | enable | delete | reset | printer | usb | xbox | playstation | pdf | photoshop | app store | monitor | backup | back up
math: calculate | solve | equation | integral | derivative | probability | prove | proof | theorem | simplify | factorise | factorize | factorial | percent | percentage | average of | sum of | square root | remainder | divided by | multiply | triangle | polynomial | matrix | convert | area of | volume of | prime | divisible | evaluate the | compute | perimeter | radius | speed of | how much does he | how much money | in total | altogether | remain | remaining | left over | per hour | interest rate | discount | next number | integer | integers | digit | digits | eigenvalue* | logarithm* | converge* | half-life | average speed | compound interest | arithmetic | geometric | derive | determine the | ratio of | cubic | kilometres | litres | km/h | mph | dice | die shows | chance that | solution set | fraction of | how many ways | permutation* | combination of
estimate: estimate | approximately | roughly | how many | how much | how far | how long | how old | how tall | how often | how fast | how big | how heavy | how high | how deep | number of
short: one sentence | a sentence | two sentences | single sentence | few words | one word | single word | in short | short answer | one line | tl;dr | tldr | yes or no | true or false | brief answer | just the answer | only the answer | one paragraph | no explanation | answer only | briefly | concise* | in brief | only reply | reply with | answer with | just the name | just give | keep it short | short summary | in a few words | single paragraph | short paragraph
brief: in exactly | in no more than | at most | in less than | no longer than | words or less | words or fewer | one short | one-line | one line | under 50 words | under 100 words | exactly three | characters
format: json | yaml | xml | csv | table | markdown | spreadsheet | latex | bullet | diagram | ascii | comma separated | comma-separated | as a list of | alphabetical | template
rewrite: rewrite | rephrase | paraphrase | proofread | correct | fix | edit | shorten | improve this | make this | turn this | reword | classify | extract | identify the | convert | fill in | continue | complete | label | categorize | categorise | sort | sentiment | grammar | the following | below | following text | this sentence | this paragraph | these sentences | spell | reverse
translate: translate | translation | in french | in spanish | in german | into english | into spanish | into french | into german | into italian | into japanese | how do you say
summary: summarize | summarise | summary | synopsis | main idea | main point | recap | key takeaways from | takeaway
steps: step by step | step-by-step | steps | process | recipe | procedure | instructions | timeline | chronolog* | in order | walk me through | sequence | how is made | directions | derive | cook | bake | build | install | set up | fix | assemble | knit | sew | fold | draw | make a | history of | how does | how do they | works | work
reasoning: explain your reasoning | show your | justify your | your reasoning | state your assumptions | your assumptions | show every step | show all steps | explain your answer | defend your | take a stand | think step | give reasons for your
logic: riddle | puzzle | deduce | logically | who is lying | knights and knaves | sudoku | next in the sequence | conclusion | therefore | if all | older than | taller than | crossing | chess | valid argument | argument valid | does it follow | fallacy | what comes next | which order | in which order | tells the truth | truth-teller | liar | logical
case: am i allowed | is he allowed | is it legal | is it normal | is that normal | have to | do i need | do i have | can i refuse | should i tell | should we | should he | should she | which one should | is it safe | is it okay | is it ok | is it possible | is it true | is there a way | is there any | has anyone | any idea why | what's going on | what is going on | what is wrong | what's wrong | wrong with
choose: which is better | which one | should i | better to | or should | is it better | best option | worth it | prefer | do you think | your favorite | your favourite | your opinion
roleplay: act as | pretend | you are | you're | imagine you | imagine you're | imagine you are | as a | roleplay | role-play | play the role | interview me | from the perspective | speak as | in the voice | in character | in the style
fact: capital | who | when | where | which year | what year | born | invented | name of | tallest | largest | smallest | fastest | first person | won | population | president | author of | wrote | synonym | antonym | chemical symbol | plural | abbreviation | stand for | founded | painted | called | located | known as | opposite of
meaning: meaning | mean | means | define | definition | what is a | what is an | what is the | what are
recommend: recommend | suggest | best | top | list | name | books | movies | gift | gifts | places | restaurants | foods | exercises | games | sites
implications: implications | ethical | social | societal | economic | environmental | political | cultural | legal | moral | psychological | potential | significance | challenges | opportunities
effect: impact | influence | effect | affect | affects | role of | importance | important | contribute* | shape | significance | purpose | relationship between | effective
people: child | children | kids | parent | boss | coworker | friend | husband | wife | partner | team | employees | students | teacher | family | relationship | customer | colleague | boyfriend | girlfriend | teen | customers
health: sleep | stress | anxiety | diet | health | healthy | weight | exercise | skin | pain | energy | insomnia | immune | depression | heart | blood
work: job | career | interview | resume | business | company | productivity | meeting | marketing | startup | project | sales | money | budget | invest | save | brand
world: society | environment | climate | economy | culture | government | education | technology | history | science | war | religion | politics | democracy | pollution | energy | cities | industry | healthcare | internet | artificial intelligence | ai | globalization
^yesno: is | are | was | were | do | does | did | has | have | had | will | am | isn't | aren't | don't | doesn't | can | could | should | would | may | must | can't | shouldn't | wasn't
^request: can you | could you | would you | will you | please | help me | give me | tell me | i need | i want | i'm looking | can someone | can anyone | let's | show me | provide | i would like | share
^howto: how
^why: why | how come
^what: what | what's
^which: which
^who: who | who's | whose | whom
^when: when | in which year | in what year
^where: where
^situation: when to | when is it | when would | when should | when does it make | when do you | where can | where could | where should | where would | where might | where does it make | where do i have to | where to
^howmany: how many | how much | how far | how long | how old | how tall | how often | how fast | how big | how heavy | how high | how deep | how large
^followup: and | but | also | so | what about | how about | why ? | why not | really | then | ok | okay | more | another one | the second | the first one | the last | can you elaborate | elaborate | go on | continue | explain that | explain it | explain this | tell me more | what do you mean | did you mean | are you sure | that | those | it | same | again | try again | shorter | now | which of these | which of those | which of them | what else | anything else | thanks | thank you | hello | hi | hey | hi there | good morning | how are you | make it | make that | rewrite it | in that case | yes | no | could you explain that | can you explain that | expand on | what if not | number | instead | or
anaphora: that one | this one | the second one | the first one | the last one | the third | the other one | the former | the latter | you said | you mentioned | your answer | you just | above | previous | point 2 | point 3 | point 1 | the second point | the third point | the first point | last answer | as you | from your list | your list | these | those | them
""",
    "de": """
mechanism: wie funktioniert | funktionier* | prinzip | mechanismus | analogie | was passiert | vorgang | kreislauf
aspects: in bezug auf | hinsichtlich | im hinblick | jeweils | sowie | berücksichtige | je ein | aus sicht
discuss: erörter* | diskutier* | analysier* | bewerte* | beurteil* | untersuch* | setze dich | wäge
create: erstell* | entwickle | entwickeln | entwirf | konzipier* | plane | schlag* | gestalte
many: einige | mehrere | verschiedene | verschiedenen | wichtigste | wichtigsten | häufigste | häufigsten | typische | paar | drei | fünf | zehn | jede | jeden | jeweils | so viele | alles
list: tipps | tipp | möglichkeit* | ideen | beispiel* | strateg* | vorschläge | gründe | grund | vorteil* | nachteil* | faktoren | ursachen | folgen | auswirkungen | arten | merkmale | eigenschaften | herausforderungen | empfehlungen | methoden | techniken | aspekte | gewohnheiten | risiken | symptome | anzeichen | maßnahmen | fehler | unterschiede | gemeinsamkeiten | dinge | wege | fähigkeiten | kriterien | lösungen | gefahren | argumente | aufgaben | punkte | hobbys | grundsätze | schwierigkeiten | voraussetzungen
advice: verbesser* | überwind* | vermeid* | vorbeug* | verhinder* | vorbereit* | reduzier* | umgehen | bewältig* | stärk* | förder* | schütz* | motivier* | steiger* | rat | ratschl* | besser | spar*
pros: vor- und nachteile | vor - und nachteile | für und wider | pro und contra | stärken und schwächen
diff: unterschied* | unterscheid* | vergleich* | versus | im gegensatz
howto: wie kann | wie könnte | wie sollte | wie lerne | wie geht | wie werde | wie bereite | wie schaffe | wie finde | wie verbessere | wie gehe | wie vermeide | wie schütze | wie macht | wie kann man | wie können | wie lässt
why: warum | wieso | weshalb | woran liegt
whatif: was wäre | was würde | was passiert wenn | stell dir vor | angenommen | wie sähe
explain: erkläre | erklär | beschreib* | erläuter* | diskutier* | erzähl mir von | überblick | analysier* | was weißt du über
plan: plan | reiseplan | trainingsplan | trainingsprogramm | lernplan | checkliste | leitfaden | wochenplan | lernplan | zeitplan
write: schreib* | verfass* | entwirf | erstell* | dichte | erfinde | formulier*
story: geschichte | gedicht | gedichte | haiku | lied | liedtext | roman | märchen | witz | witze | dialog | drehbuch | szene | kurzgeschichte | tagebuch* | strophe | reim* | monolog | fabel | kapitel
letter: brief | e-mail | mail | bewerbung* | anschreiben | slogan | rede | einladung | pressemitteilung | nachricht an | kündigung* | beschwerde* | werbetext | überschrift | produktbeschreibung | entschuldigung*
essay: aufsatz | artikel | absatz | blogbeitrag | bericht
code: code | funktion | programm | skript | quelltext | algorithmus | implementier* | abfrage | regulären ausdruck
tech: datei* | tabelle | server | datenbank | fehlermeldung
math: berechne | rechne | löse | gleichung | wahrscheinlichkeit | beweis* | ableitung | integral | prozent | summe | quadratwurzel | wurzel aus | dreieck* | übrig | zusammen | geteilt durch | insgesamt
estimate: schätz* | ungefähr | wie viele | wie viel | wieviel | wie weit | wie lange | wie alt | wie hoch | wie groß | wie oft | wie schnell | wie schwer | wie tief
short: einem satz | zwei sätzen | einem wort | in kürze | kurz und knapp | kurze antwort | ja oder nein | wahr oder falsch | nur die antwort | in wenigen worten | kurz | knapp | stichwort
format: als json | als tabelle | tabellarisch | als csv | json | tabelle | vorlage
rewrite: umschreib* | formuliere um | formulier um | korrigier* | kürze | verbessere diesen | folgenden | folgende | diesen text | diesen satz | ordne | ergänze | klassifizier* | vervollständig*
translate: übersetz* | auf englisch | ins englische | ins deutsche | ins französische | auf französisch | auf spanisch
summary: zusammenfass* | fasse | fass | kernaussage
steps: schritt für schritt | schritte | rezept | anleitung | ablauf | zeitleiste | reihenfolge | backt man | koche ich | backe ich | baue ich | installier* | funktioniert | verlauf | entsteht
logic: rätsel | logik* | folgt daraus
choose: was ist besser | soll ich | sollte ich | lohnt | lieber | deine meinung | findest du
roleplay: du bist | stell dir vor du | spiel* die rolle | tu so | als ein | in der rolle | aus der sicht
fact: hauptstadt | wer | wann | wo | welchem jahr | geboren | erfunden | erfand | heißt | höchste | größte | längste | gewann | gewonnen | einwohner | präsident | gegenteil | abkürzung | mehrzahl | liegt | gegründet | gemalt | nennt man
meaning: bedeut* | definier* | definition | was ist | was sind | was versteht man
recommend: empfiehl | empfehl* | nenne | beste | besten | liste | bücher | geschenk* | orte
effect: auswirk* | einfluss | beeinfluss* | rolle | bedeutung | wichtig | zweck | wirkt
people: kind* | eltern | chef | kolleg* | freund* | team | mitarbeiter* | schüler* | familie | partner*
health: schlaf* | stress | gesund* | ernährung | gewicht | rücken* | haut
work: beruf* | karriere | vorstellungsgespräch | unternehmen | firma | geld | homeoffice | arbeit*
world: gesellschaft | umwelt | klima* | wirtschaft | kultur | bildung | technik | städte | industrie
^yesno: ist | sind | war | waren | hat | haben | kann | können | darf | dürfen | soll | sollte | wird | gibt es | gibt's | muss | musst | machst | lebt | stimmt
^request: kannst du | könntest du | bitte | hilf mir | gib mir | nenne mir | zeig mir | ich brauche | ich möchte | sag mir | würdest du
^howto: wie
^why: warum | wieso | weshalb
^what: was
^which: welche | welcher | welches | welchen
^who: wer | wem | wen
^when: wann | in welchem jahr
^where: wo | woher | wohin
^howmany: wie viele | wie viel | wieviel | wie weit | wie lange | wie alt | wie hoch | wie groß | wie oft | wie schnell | wie schwer
^followup: und | aber | auch | warum ? | wieso ? | mehr | weiter | noch | danke | hallo | was noch | was meinst du | bist du sicher | der zweite | das zweite | das erste | erkläre das | erklär das | kürzer | jetzt | dann | hi | guten tag | mach | nochmal | oder
anaphora: das zweite | der zweite | das erste | dem ersten | ersten punkt | zweiten punkt | dritten punkt | du gesagt | deine antwort | davon | dazu | darüber | oben | deiner liste
""",
    "fr": """
mechanism: fonctionne | mécanisme | principe de | analogie | que se passe | processus | théorème | théorie de
aspects: en termes de | du point de vue | en ce qui concerne | chacun | chacune | ainsi que | concernant | pour chaque
discuss: discute* | analyse* | évalue* | examine* | commente
create: crée | créez | élabore* | conçois | concevez | propose | proposez | développe* | imagine
many: plusieurs | quelques | différents | différentes | principaux | principales | grands | grandes | typiques | trois | cinq | dix | chaque | chacun | chacune | tant de | les plus | divers
list: conseil* | façons | moyens | idées | exemples | stratég* | suggestions | raisons | avantages | bienfaits | inconvénients | facteurs | causes | effets | types | sortes | caractéristiques | défis | recommandations | méthodes | techniques | aspects | habitudes | risques | symptômes | signes | conséquences | mesures | erreurs | différences | solutions | choses | qualités | compétences | critères | pistes | dangers | astuces | arguments | étapes | activités | principes | enjeux
advice: amélior* | surmonter | éviter | prévenir | préparer | réduire | gérer | renforcer | protéger | motiver | augmenter | mieux | économiser | encourager | lutter
pros: avantages et inconvénients | avantages et les inconvénients | pour et le contre | pour et contre | forces et faiblesses
diff: différence* | compare* | comparaison | distingu* | versus | par rapport
howto: comment puis | comment peut | comment faire | comment | comment on
why: pourquoi | pour quelle raison
whatif: que se passerait | et si | qu'arriverait | imagine que | imaginons | supposons | aurait été
explain: expliqu* | décris | décrivez | décrire | parle moi | parle-moi | présente | aperçu | analyse | discute
plan: plan | programme | itinéraire | liste de contrôle | guide | planning
write: écris | écrivez | écrire | rédige* | compose* | crée | invente | imagine un | imagine une
story: histoire | poème | haïku | chanson | paroles | roman | conte | blague | dialogue | scénario | scène | nouvelle | monologue | fable | rime* | journal intime | chapitre
letter: lettre | e-mail | mail | courriel | slogan | discours | invitation | communiqué | message à | annonce | motivation | titre | description de produit
essay: dissertation | article | paragraphe | rédaction
code: code | fonction | programme qui | script | algorithme | implément* | requête | expression régulière
tech: fichier* | serveur | base de données | tableau
math: calcule* | résous | résoudre | équation | probabilité | démontre* | prouve* | dérivée | intégrale | pour cent | somme | racine carrée | triangle | reste-t-il | au total | divisé
estimate: combien | estime* | environ | quelle distance | quelle est la hauteur | quel âge | à quelle vitesse
short: en une phrase | une phrase | deux phrases | un mot | en bref | brièvement | réponse courte | oui ou non | vrai ou faux | seulement la réponse | quelques mots
format: json | tableau | csv | modèle
rewrite: réécris | reformule* | corrige* | raccourcis | suivant | suivante | suivants | ce texte | cette phrase | classe | complète
translate: traduis | traduire | traduction | traduisez | en anglais | en français | en espagnol | en allemand
summary: résume* | résumé | synthèse
steps: étape par étape | recette | mode d'emploi | procédure | chronologie | déroulement | installer | fonctionne | cuisiner | fabriquer | processus
logic: énigme | devinette | logique
choose: vaut-il mieux | lequel | laquelle | dois-je | devrais-je | préfères | ton avis | votre avis
roleplay: tu es | vous êtes | imagine que tu | joue le rôle | fais comme si | dans le rôle | du point de vue
fact: capitale | qui | quand | où | quelle année | né | inventé | s'appelle | plus haut | plus grand | plus grande | gagné | habitants | président | contraire | a écrit | a peint | découvert
meaning: signifie | définition | définis | veut dire | qu'est-ce qu' | qu'est ce que | c'est quoi
recommend: recommande* | propose* | donne | cite* | meilleur* | liste | livres | cadeau* | lieux
effect: impact | influence | effet | rôle | importance | affecte | sert | utilité
people: enfant* | parent* | patron | collègue* | ami* | équipe | employés | élèves | famille | client*
health: sommeil | stress | santé | alimentation | poids | dos | peau | anxiété | dormir
work: travail | carrière | entretien | entreprise | argent | budget | télétravail | emploi
world: société | environnement | climat* | économie | culture | éducation | technologie | villes | industrie
^yesno: est-ce | est | sont | a-t | peut-on | puis-je | faut-il | y a-t | dois-je | as-tu | es-tu | peut | existe-t | est-il | est-elle
^request: peux-tu | pouvez-vous | pourrais-tu | pourriez-vous | aide-moi | donne-moi | dis-moi | j'ai besoin | je voudrais | s'il te plaît
^howto: comment
^why: pourquoi
^what: que | qu'est | quoi | quel | quelle
^which: quels | quelles | lequel
^who: qui
^when: quand | en quelle année
^where: où
^howmany: combien | à quelle distance
^followup: et | mais | aussi | pourquoi ? | encore | continue | merci | bonjour | salut | le deuxième | la deuxième | le premier | explique ça | plus court | alors | ok | et pour | et le | tu es sûr | quoi d'autre | refais | ou
anaphora: le deuxième | la deuxième | le premier | le second | la seconde | deuxième point | premier point | troisième point | ta réponse | tu as dit | ci-dessus | ta liste | cela | ça
""",
    "es": """
mechanism: funciona | mecanismo | principio de | analogía | qué ocurre | qué pasa | proceso | teorema | teoría de
aspects: en cuanto a | en términos de | desde el punto | cada uno | cada una | así como | respecto a | para cada
discuss: analiza | discute | evalúa | examina | debate | valora
create: crea | diseña | elabora | desarrolla | propón | propone | planifica
many: varios | varias | algunos | algunas | diferentes | distintos | principales | comunes | típicos | tres | cinco | diez | cada | cada uno | tantos | los más | diversas
list: consejo* | formas | maneras | ideas | ejemplos | estrateg* | sugerencias | razones | motivos | ventajas | beneficios | desventajas | factores | causas | efectos | tipos | clases | características | desafíos | retos | recomendaciones | métodos | técnicas | aspectos | hábitos | riesgos | síntomas | señales | consecuencias | medidas | errores | diferencias | soluciones | cosas | cualidades | habilidades | criterios | peligros | argumentos | actividades | principios | trucos
advice: mejor* | superar | evitar | prevenir | preparar* | reducir | manejar | gestionar | fortalecer | proteger | motivar | aumentar | ahorrar | fomentar | afrontar | lidiar
pros: ventajas y desventajas | ventajas y los inconvenientes | ventajas y las desventajas | pros y contras | pros y los contras | a favor y en contra | fortalezas y debilidades | ventajas e inconvenientes
diff: diferencia* | compar* | distingu* | versus | frente a
howto: cómo puedo | cómo se puede | cómo podemos | cómo debería | cómo hacer | cómo
why: por qué | a qué se debe
whatif: qué pasaría | y si | imagina que | supongamos | hubiera | cómo sería
explain: explic* | describ* | háblame | cuéntame sobre | analiz* | resumen general | expón | comenta
plan: plan | itinerario | lista de verificación | guía | rutina | programa de
write: escrib* | redact* | compón | componer | crea | inventa | genera
story: cuento | poema | haiku | canción | letra de | novela | historia de un | historia sobre | historia | chiste | diálogo | guion | escena | relato | monólogo | fábula | rima* | diario | capítulo
letter: carta | correo | email | eslogan | discurso | invitación | comunicado | mensaje para | anuncio | titular | presentación | descripción del producto
essay: ensayo | artículo | párrafo | redacción
code: código | función | programa | script | algoritmo | implement* | consulta sql | expresión regular
tech: archivo* | servidor | base de datos | tabla
math: calcul* | resuelve | resolver | ecuación | probabilidad | demuestra | derivada | integral | por ciento | suma | raíz cuadrada | triángulo | le quedan | en total | dividido
estimate: cuánto* | cuánta* | estim* | aproximadamente | qué tan | a qué distancia | qué altura
short: una frase | una oración | una palabra | en breve | brevemente | respuesta corta | sí o no | verdadero o falso | solo la respuesta | pocas palabras | dos frases | dos oraciones
format: json | tabla | csv | plantilla
rewrite: reescrib* | reformula* | corrig* | acorta | siguiente | siguientes | este texto | esta frase | clasifica | completa | parafrasea
translate: traduc* | al inglés | al español | en inglés | al francés | al alemán
summary: resum* | síntesis
steps: paso a paso | pasos | receta | instrucciones | procedimiento | cronología | proceso | instalar | funciona | cocinar | preparo una | historia de la
logic: acertijo | adivinanza | lógica
choose: es mejor | cuál es mejor | debería | vale la pena | prefieres | tu opinión
roleplay: eres un | eres una | imagina que eres | actúa como | haz de | finge | en el papel | desde el punto
fact: capital | quién | cuándo | dónde | qué año | nació | inventó | se llama | más alto | más alta | más grande | más largo | ganó | habitantes | presidente | contrario | escribió | pintó | descubrió
meaning: significa | definición | define | qué es | qué son | quiere decir
recommend: recom* | sugiere | suger* | dame | nombra | mejores | lista | libros | regalo* | lugares
effect: impacto | influencia | efecto | papel | importancia | afecta* | influye* | sirve
people: hijo* | niño* | padre* | jefe | compañero* | amigo* | equipo | empleados | alumnos | familia | cliente* | pareja
health: sueño | estrés | salud | dieta | peso | piel | ansiedad | dormir | espalda
work: trabajo | carrera | entrevista | empresa | dinero | presupuesto | negocio
world: sociedad | medio ambiente | clima* | economía | cultura | educación | tecnología | ciudades | industria
^yesno: es | son | está | están | puedo | puede | pueden | hay | tiene | tienen | existe | debo | debería | fue | se puede | hace
^request: puedes | podrías | por favor | ayúdame | dame | dime | necesito | quiero | me gustaría
^howto: cómo
^why: por qué
^what: qué | cuál
^which: cuáles
^who: quién | quiénes
^when: cuándo | en qué año
^where: dónde
^howmany: cuántos | cuántas | cuánto | cuánta | a qué distancia
^followup: y | pero | también | por qué ? | más | sigue | continúa | gracias | hola | el segundo | la segunda | el primero | explica eso | más corto | entonces | ok | y qué | estás seguro | qué más | ahora | otra vez | o
anaphora: el segundo | la segunda | el primero | la primera | segundo punto | primer punto | tercer punto | tu respuesta | dijiste | anterior | tu lista | eso
""",
    "it": """
mechanism: funziona | meccanismo | principio di | analogia | che cosa succede | cosa succede | processo | teorema | teoria della
aspects: in termini di | dal punto di vista | per quanto riguarda | ciascuno | ciascuna | ognuno | nonché | per ogni
discuss: analizza | discuti | valuta | esamina | commenta
create: crea | progetta | elabora | sviluppa | proponi | pianifica
many: vari | varie | alcuni | alcune | qualche | diversi | diverse | principali | comuni | tipici | tipiche | tre | cinque | dieci | ogni | ognuno | tanti | i più
list: consigli* | modi | idee | esempi | strateg* | suggerimenti | ragioni | motivi | vantaggi | benefici | svantaggi | fattori | cause | effetti | tipi | caratteristiche | sfide | raccomandazioni | metodi | tecniche | aspetti | abitudini | rischi | sintomi | segni | segnali | conseguenze | misure | errori | differenze | soluzioni | cose | qualità | competenze | criteri | pericoli | argomenti | attività | principi | trucchi | accorgimenti
advice: miglior* | superare | evitare | prevenire | prepararsi | prepararmi | ridurre | gestire | rafforzare | proteggere | motivare | aumentare | risparmiare | affrontare | meglio | incoraggiare
pros: vantaggi e svantaggi | vantaggi e gli svantaggi | pro e contro | pro e i contro | punti di forza
diff: differenz* | confront* | distingu* | paragona* | rispetto a
howto: come posso | come si può | come fare | come possiamo | come dovrei | come si | come
why: perché | come mai
whatif: cosa succederebbe | e se | immagina che | supponiamo | fosse stato | che cosa sarebbe
explain: spieg* | descriv* | parlami | analizza | illustra | raccontami di | discuti
plan: piano | itinerario | programma di | guida | tabella di marcia | lista di controllo
write: scriv* | compon* | crea | inventa | redigi | genera
story: storia | racconto | poesia | haiku | canzone | testo di una canzone | romanzo | fiaba | favola | barzelletta | dialogo | sceneggiatura | scena | monologo | rima | filastrocca | diario | capitolo
letter: lettera | e-mail | email | mail | slogan | discorso | invito | comunicato | messaggio per | annuncio | titolo | descrizione del prodotto
essay: saggio | articolo | paragrafo | tema su
code: codice | funzione | programma che | script | algoritmo | implementa* | query | espressione regolare
tech: file | server | database | tabella
math: calcol* | risolvi | equazione | probabilità | dimostra | derivata | integrale | per cento | somma | radice quadrata | triangolo | rimangono | restano | in totale | diviso
estimate: quanto | quanti | quanta | quante | stima | circa
short: una frase | una parola | in breve | brevemente | risposta breve | sì o no | vero o falso | solo la risposta | poche parole | due frasi
format: json | tabella | csv | modello
rewrite: riscrivi | riformula | correggi | accorcia | seguente | seguenti | questo testo | questa frase | classifica | completa
translate: traduc* | in inglese | in italiano | in francese | in tedesco
summary: riassum* | sintesi | riassunto
steps: passo dopo passo | passo passo | passaggi | ricetta | istruzioni | procedura | cronologia | processo | installare | funziona | cucinare | si prepara | si fa
logic: indovinello | enigma | logica
choose: è meglio | quale è meglio | dovrei | conviene | vale la pena | preferisci | tua opinione
roleplay: sei un | sei una | immagina di essere | fai finta | recita | interpreta | nel ruolo | dal punto di vista
fact: capitale | chi | quando | dove | che anno | nato | nata | inventato | si chiama | più alto | più alta | più grande | più lungo | vinto | abitanti | presidente | contrario | ha scritto | ha dipinto | scoperto
meaning: significa | definizione | definisci | che cos'è | cos'è | cosa sono | vuol dire
recommend: raccomand* | suggerisci | dammi | elenca | migliori | lista | libri | regal* | luoghi | posti
effect: impatto | influenza | effetto | ruolo | importanza | influisce | serve
people: figli* | bambin* | genitor* | capo | collegh* | amic* | squadra | dipendenti | studenti | famiglia | clienti
health: sonno | stress | salute | dieta | peso | pelle | ansia | dormire | schiena
work: lavoro | carriera | colloquio | azienda | soldi | denaro | budget
world: società | ambiente | clima* | economia | cultura | istruzione | tecnologia | città | industria
^yesno: è | sono | posso | può | possono | c'è | ci sono | si può | devo | hai | ha | esiste | vale | fa
^request: puoi | potresti | per favore | aiutami | dammi | dimmi | mi serve | ho bisogno | vorrei
^howto: come
^why: perché | come mai
^what: cosa | che | qual
^which: quali | quale
^who: chi
^when: quando | in che anno
^where: dove
^howmany: quanti | quante | quanto | quanta
^followup: e | ma | anche | perché ? | ancora | continua | grazie | ciao | il secondo | la seconda | il primo | spiega meglio | più corto | allora | ok | e per | sei sicuro | altro | adesso | di nuovo | o
anaphora: il secondo | la seconda | il primo | secondo punto | primo punto | terzo punto | tua risposta | hai detto | precedente | tua lista | questo | quello
""",
    "pt": """
mechanism: funciona | mecanismo | princípio | analogia | o que acontece | processo | teorema | teoria da
aspects: em termos de | do ponto de vista | em relação a | cada um | cada uma | bem como | quanto a | para cada
discuss: analise | discuta | avalie | examine | debata
create: crie | desenvolva | elabore | proponha | planeje | projete
many: vários | várias | alguns | algumas | diferentes | principais | comuns | típicos | três | cinco | dez | cada | cada um | tantos | mais comuns | diversas
list: dicas | dica | conselho* | formas | maneiras | ideias | exemplos | estratég* | sugestões | razões | motivos | vantagens | benefícios | desvantagens | fatores | causas | efeitos | tipos | características | desafios | recomendações | métodos | técnicas | aspectos | hábitos | riscos | sintomas | sinais | consequências | medidas | erros | diferenças | soluções | coisas | qualidades | habilidades | critérios | perigos | argumentos | atividades | princípios | cuidados
advice: melhor* | superar | evitar | prevenir | preparar* | reduzir | lidar | gerir | gerenciar | fortalecer | proteger | motivar | aumentar | economizar | poupar | incentivar | combater
pros: vantagens e desvantagens | vantagens e as desvantagens | prós e contras | prós e os contras | pontos fortes
diff: diferença* | compar* | distingu* | versus | em relação
howto: como posso | como podemos | como se pode | como devo | como fazer | como
why: por que | porque | por quê
whatif: o que aconteceria | e se | imagine que | suponha | tivesse sido | como seria
explain: expli* | descrev* | fale sobre | fala-me | analis* | conte sobre | discuta | apresente
plan: plano | roteiro | itinerário | guia | rotina | programa de | cronograma
write: escrev* | redij* | componha | compõe | crie | cria | invente | inventa | elabore
story: história | conto | poema | haicai | canção | letra de | romance | piada | diálogo | cena | monólogo | fábula | rima* | diário | capítulo
letter: carta | e-mail | email | slogan | discurso | convite | comunicado | mensagem para | anúncio | título | descrição do produto
essay: redação | artigo | parágrafo | ensaio
code: código | função | programa que | script | algoritmo | implement* | consulta sql | expressão regular
tech: arquivo* | ficheiro* | servidor | banco de dados | tabela
math: calcul* | resolva | resolve | equação | probabilidade | demonstre | prove | derivada | integral | por cento | soma | raiz quadrada | triângulo | sobram | no total | dividido
estimate: quanto* | quanta* | estim* | aproximadamente | qual a altura | qual a distância
short: uma frase | uma palavra | em resumo | brevemente | resposta curta | sim ou não | verdadeiro ou falso | apenas a resposta | só a resposta | poucas palavras | duas frases
format: json | tabela | csv | modelo de
rewrite: reescrev* | reformul* | corrij* | corrig* | encurte | seguinte | seguintes | este texto | esta frase | classifique | complete
translate: traduz* | tradução | para o inglês | para inglês | em inglês | para o português | para português | para o francês
summary: resum* | síntese
steps: passo a passo | passos | receita | instruções | procedimento | cronologia | processo | instalar | funciona | cozinhar | história do
logic: charada | adivinha | enigma | lógica
choose: é melhor | qual é melhor | devo | vale a pena | prefere | sua opinião
roleplay: você é | és um | imagine que você | aja como | finja | faz de conta | no papel | do ponto de vista
fact: capital | quem | quando | onde | que ano | nasceu | inventou | chama | mais alto | mais alta | maior | mais longo | ganhou | venceu | habitantes | presidente | contrário | escreveu | pintou | descobriu
meaning: significa | definição | defina | o que é | o que são | quer dizer
recommend: recomend* | sugira | sugere | dê | cite | liste | melhores | lista | livros | presente* | lugares
effect: impacto | influência | efeito | papel | importância | afeta* | influencia | serve
people: filho* | criança* | pais | chefe | colega* | amigo* | equipe | equipa | funcionários | alunos | família | cliente*
health: sono | estresse | saúde | dieta | peso | pele | ansiedade | dormir | costas
work: trabalho | carreira | entrevista | empresa | dinheiro | orçamento | negócio
world: sociedade | meio ambiente | clima* | economia | cultura | educação | tecnologia | cidades | indústria
^yesno: é | são | está | posso | pode | podem | há | tem | existe | devo | foi | eu posso | dá para | faz
^request: você pode | você poderia | pode me | podes | por favor | me ajude | ajuda-me | me dê | dá-me | me diga | preciso | quero | gostaria
^howto: como
^why: por que | porque
^what: o que | qual | que
^which: quais
^who: quem
^when: quando | em que ano
^where: onde
^howmany: quantos | quantas | quanto | quanta
^followup: e | mas | também | por quê ? | mais | continue | obrigado | olá | oi | o segundo | a segunda | o primeiro | explique isso | mais curto | então | ok | e quanto | tem certeza | o que mais | agora | de novo | ou
anaphora: o segundo | a segunda | o primeiro | segundo ponto | primeiro ponto | terceiro ponto | sua resposta | você disse | anterior | sua lista | isso
""",
    "nl": """
mechanism: werkt | mechanisme | principe | analogie | wat gebeurt | proces | stelling
aspects: op het gebied van | wat betreft | met betrekking tot | elk | elke | alsook | voor elk | vanuit het
discuss: bespreek | analyseer | beoordeel | onderzoek | evalueer
create: ontwerp | ontwikkel | stel | bedenk | maak een
many: enkele | enige | verschillende | diverse | belangrijkste | typische | paar | drie | vijf | tien | elk | elke | zoveel | meest | grote
list: tips | manieren | ideeën | voorbeelden | strateg* | suggesties | redenen | voordelen | nadelen | factoren | oorzaken | gevolgen | effecten | soorten | kenmerken | eigenschappen | uitdagingen | aanbevelingen | methoden | technieken | aspecten | gewoontes | gewoonten | risico's | symptomen | tekenen | maatregelen | fouten | verschillen | oplossingen | dingen | kwaliteiten | vaardigheden | criteria | gevaren | argumenten | activiteiten | principes | adviezen
advice: verbeter* | overwin* | vermijd* | voorkom* | voorbereid* | verminder* | omgaan | versterk* | bescherm* | motiver* | verhog* | bespar* | beter | advies
pros: voor- en nadelen | voor - en nadelen | voors en tegens | sterke en zwakke
diff: verschil* | vergelijk* | onderscheid* | versus | ten opzichte
howto: hoe kan | hoe kun | hoe moet | hoe leer | hoe word | hoe zorg | hoe ga | hoe bereid | hoe houd | hoe kunnen
why: waarom | hoe komt het
whatif: wat als | wat zou er | stel je voor | stel dat | hoe zou
explain: leg uit | leg | uitleg | vertel | beschrijf | bespreek | vertel me over | overzicht | analyseer | licht toe
plan: plan | reisplan | trainingsschema | studieplan | schema | checklist | stappenplan | planning
write: schrijf | maak een | bedenk | verzin | stel een | ontwerp | componeer
story: verhaal | gedicht | haiku | liedje | lied | songtekst | roman | sprookje | mop | grap | dialoog | scène | monoloog | fabel | rijm* | dagboek* | hoofdstuk
letter: brief | e-mail | mail | sollicitatiebrief | slogan | toespraak | uitnodiging | persbericht | bericht aan | advertentie | kop | productbeschrijving
essay: opstel | artikel | alinea | blogpost | verslag
code: code | functie die | programma | script | algoritme | implementeer | query | reguliere expressie
tech: bestand* | server | database | tabel
math: bereken | los | vergelijking | kans | bewijs | afgeleide | integraal | procent | som van | wortel | driehoek | over | in totaal | gedeeld
estimate: hoeveel | schat | ongeveer | hoe ver | hoe lang | hoe oud | hoe hoog | hoe groot | hoe vaak | hoe snel | hoe zwaar
short: één zin | een zin | één woord | een woord | kort | kort antwoord | ja of nee | waar of niet waar | alleen het antwoord | paar woorden | twee zinnen
format: als json | als tabel | json | tabel | csv | sjabloon
rewrite: herschrijf | herformuleer | corrigeer | verbeter deze | verkort | volgende | deze tekst | deze zin | classificeer | vul aan
translate: vertaal | vertaling | naar het engels | in het engels | naar het nederlands
summary: samenvat* | vat
steps: stap voor stap | stappen | recept | handleiding | procedure | tijdlijn | proces | installeer | werkt | bak ik | kook ik | bouw ik | hoe maak
logic: raadsel | logica
choose: wat is beter | moet ik | kan ik beter | is het beter | de moeite waard | jouw mening | liever
roleplay: je bent een | jij bent | stel je voor dat je | doe alsof | speel de rol | vanuit het perspectief
fact: hoofdstad | wie | wanneer | waar | welk jaar | geboren | uitgevonden | heet | hoogste | grootste | langste | won | gewonnen | inwoners | president | tegenovergestelde | schreef | schilderde | ontdekte
meaning: betekent | betekenis | definieer | definitie | wat is | wat zijn
recommend: raad | aanraden | noem | geef | beste | lijst | boeken | cadeau* | plekken
effect: impact | invloed | effect | rol | belang | belangrijk | beïnvloed* | doel
people: kind* | ouders | baas | collega* | vriend* | team | werknemers | leerlingen | gezin | klant*
health: slaap | slapen | stress | gezond* | dieet | gewicht | huid | rug
work: werk | carrière | sollicitatiegesprek | bedrijf | geld | budget | thuiswerken
world: samenleving | milieu | klimaat* | economie | cultuur | onderwijs | technologie | steden | industrie
^yesno: is | zijn | was | heeft | hebben | kan | kunnen | mag | mogen | moet | bestaat | klopt | zal | wordt
^request: kun je | kan je | zou je | alsjeblieft | help me | geef me | geef mij | vertel me | ik heb | ik wil | noem
^howto: hoe
^why: waarom
^what: wat
^which: welke | welk
^who: wie
^when: wanneer | in welk jaar
^where: waar
^howmany: hoeveel | hoe ver | hoe lang | hoe oud | hoe hoog | hoe groot | hoe vaak | hoe snel | hoe zwaar
^followup: en | maar | ook | waarom ? | meer | ga door | bedankt | hallo | hoi | de tweede | het tweede | de eerste | leg dat uit | korter | dan | ok | weet je het zeker | wat nog | nu | opnieuw | of
anaphora: de tweede | het tweede | de eerste | tweede punt | eerste punt | derde punt | jouw antwoord | je zei | hierboven | je lijst | dat
""",
    "ru": """
mechanism: работает | механизм | принцип | аналоги* | что происходит | процесс | теорем*
aspects: с точки зрения | каждого | каждой | каждый | а также | с учётом | в отношении
discuss: обсуди* | проанализируй* | оцени* | рассмотри*
create: создай* | разработай* | предложи* | составь* | спланируй* | придумай*
many: несколько | различны* | разны* | основны* | главны* | важны* | типичны* | частые | чаще всего | пару | три | пять | десять | каждый | каждую | каждого | каждой | столько | многие | так много
list: совет* | способ* | идеи | идей | пример* | стратег* | предложени* | причин* | преимуществ* | плюсы | минусы | недостат* | достоинств* | фактор* | последстви* | виды | типы | особенност* | характеристик* | проблемы | рекомендац* | метод* | техник* | аспект* | привычк* | риск* | симптом* | признак* | меры | ошибк* | различи* | отличи* | решени* | вещи | качеств* | навык* | критери* | опасност* | аргумент* | принцип* | вариант*
advice: улучш* | преодол* | избежать | избегать | предотврат* | подготов* | сниз* | уменьш* | справ* | укреп* | защит* | мотивир* | повыс* | эконом* | лучше
pros: плюсы и минусы | преимущества и недостатки | за и против | достоинства и недостатки | сильные и слабые
diff: разниц* | отлича* | различа* | сравн* | различия между | отличия
howto: как можно | как мне | как научиться | как правильно | как стать | как лучше | как
why: почему | отчего | зачем
whatif: что если | что было бы | что произойд* | представь что | предположим | что бы случилось | как изменился бы
explain: объясни* | опиши* | расскажи* | обсуди* | обзор | проанализируй* | поясни*
plan: план | маршрут | чек-лист | руководство | расписание | программу тренировок
write: напиши* | сочини* | составь* | создай* | придумай* | сгенерируй*
story: рассказ | истори* | стих* | стихотворени* | хокку | хайку | песн* | роман | сказк* | анекдот | шутк* | диалог | сценарий | сцену | монолог | басн* | рифм* | дневник* | главу
letter: письмо | слоган | речь | приглашение | пресс-релиз | сообщение для | объявление | заголов* | резюме | описание товара | поздравление
essay: эссе | сочинение | статью | абзац
code: код | функци* | программу , котор | программу на | скрипт | алгоритм | реализуй* | запрос | регулярное выражение
tech: файл* | сервер* | базу данных | базы данных | таблиц*
math: вычисли* | реши* | посчитай* | уравнени* | вероятност* | докажи* | производн* | интеграл | процент* | сумм* | корень | треугольник* | осталось | всего | раздели
estimate: сколько | оцени* | примерно | как далеко | как долго | как часто | какова высота | какова длина
short: одним предложением | одном предложении | одним словом | кратко | вкратце | коротко | короткий ответ | да или нет | верно или неверно | только ответ | двух словах | двух предложениях
format: json | таблиц* | csv | шаблон
rewrite: перепиши* | перефразируй* | исправь* | сократи* | следующ* | этот текст | это предложение | классифицируй* | дополни* | закончи*
translate: переведи* | перевод | на английский | на русский | по-английски
summary: пересказ | резюмируй* | подведи итог | суммируй | изложи
steps: пошагов* | шаг за шагом | шаги | рецепт | инструкци* | процедур* | хронологи* | процесс | установить | работает | приготовить | сварить | испечь
logic: загадк* | логическ* | головоломк*
choose: что лучше | стоит ли | или лучше | какой лучше | твое мнение | предпочита*
roleplay: ты — | ты - | представь что ты | притворись | сыграй роль | в роли | от лица | действуй как
fact: столиц* | кто | когда | где | каком году | родился | изобрёл | изобрел | называется | самая | самый | самое | победил | выиграл | население | президент | противоположн* | написал | нарисовал | открыл
meaning: означает | значит | определение | что такое | значение слова
recommend: посоветуй* | порекомендуй* | предложи* | назови* | перечисли* | лучшие | список | книги | подар* | места
effect: влия* | воздействи* | эффект | роль | важно | важность | значение
people: ребен* | ребён* | дети | детей | детям | родител* | начальник* | коллег* | друз* | друг* | команд* | сотрудник* | ученик* | семь* | клиент*
health: сон | сна | стресс* | здоров* | питани* | вес | кож* | тревог* | спин*
work: работ* | карьер* | собеседовани* | компани* | деньг* | денег | бюджет | бизнес*
world: обществ* | окружающ* | климат* | экономик* | культур* | образовани* | технологи* | город* | промышленност*
^yesno: можно ли | есть ли | является ли | правда ли | нужно ли | может ли | стоит ли | бывает ли | умеют ли | надо ли | существует ли | это правда
^request: можешь | не мог бы ты | пожалуйста | помоги | дай | скажи | мне нужно | мне нужен | я хочу | подскажи | покажи
^howto: как
^why: почему | отчего | зачем
^what: что | какой | какая | какое
^which: какие | каковы
^who: кто | кого | кому
^when: когда | в каком году
^where: где | куда | откуда
^howmany: сколько | как далеко | как долго | как часто
^followup: и | а | но | ещё | еще | почему ? | дальше | продолжай | спасибо | привет | здравствуй | здравствуйте | второй | второе | первый | объясни это | короче | тогда | ок | ты уверен | что ещё | теперь | снова | или
anaphora: второй пункт | первый пункт | третий пункт | второе | твой ответ | ты сказал | выше | твоего списка | об этом | это
""",
    "zh": """
mechanism: 原理 | 机制 | 形成 | 怎么运作 | 如何工作 | 过程 | 定理
aspects: 方面 | 分别 | 各自 | 以及 | 角度 | 每个
discuss: 讨论 | 分析 | 评价 | 评估 | 探讨
create: 设计 | 制定 | 提出 | 策划 | 规划
many: 一些 | 几种 | 各种 | 不同的 | 主要 | 重要的 | 常见 | 典型 | 三个 | 五个 | 十个 | 分别 | 每个 | 每种 | 多种 | 这么多
list: 建议 | 方法 | 方式 | 技巧 | 哪些 | 主意 | 点子 | 例子 | 策略 | 原因有 | 理由 | 优点 | 好处 | 优势 | 缺点 | 因素 | 影响有 | 类型 | 种类 | 特点 | 特征 | 挑战 | 习惯 | 风险 | 症状 | 迹象 | 后果 | 措施 | 错误 | 区别 | 方面 | 途径 | 注意事项 | 几个 | 几点 | 要点
advice: 改善 | 提高 | 提升 | 克服 | 避免 | 预防 | 准备 | 减少 | 应对 | 管理 | 增强 | 保护 | 激励 | 保持 | 缓解 | 节省 | 养成 | 处理
pros: 优缺点 | 利弊 | 优点和缺点 | 优势和劣势 | 好处和坏处
diff: 区别 | 不同 | 差异 | 比较 | 对比 | 相比
howto: 如何 | 怎么样才 | 怎样 | 怎么 | 应该怎么
why: 为什么 | 为何
whatif: 如果.*会 | 假如 | 要是.*会 | 会发生什么 | 倘若 | 假设
explain: 解释 | 描述 | 介绍 | 说明 | 讨论 | 谈谈 | 分析 | 概述
plan: 计划 | 行程 | 清单 | 攻略 | 安排 | 方案
write: 写 | 创作 | 编一 | 生成 | 起草 | 撰写
story: 故事 | 诗 | 俳句 | 歌词 | 小说 | 童话 | 笑话 | 对话 | 剧本 | 场景 | 独白 | 寓言 | 日记 | 相声
letter: 信 | 邮件 | 标语 | 口号 | 演讲稿 | 邀请函 | 新闻稿 | 广告 | 标题 | 辞职 | 通知 | 祝福语 | 产品描述 | 文案
essay: 作文 | 文章 | 段落 | 论文
code: 代码 | 函数 | 程序 | 脚本 | 算法 | 实现一个 | 查询语句 | 正则
tech: 文件 | 服务器 | 数据库 | 数组 | 报错
math: 计算 | 求 | 解方程 | 方程 | 概率 | 证明 | 导数 | 积分 | 百分之 | 平方根 | 三角形 | 一共 | 还剩 | 除以 | 等于几 | 等于多少
estimate: 多少 | 估计 | 大约 | 多远 | 多久 | 多高 | 多大 | 几次 | 多重 | 多长
short: 一句话 | 一个词 | 两句话 | 简短 | 简要 | 简单地说 | 是或否 | 对还是错 | 只回答 | 只给 | 字以内
format: json | 表格 | csv | 模板 | JSON
rewrite: 改写 | 润色 | 修改 | 纠正 | 缩短 | 下面 | 以下 | 这段 | 这句 | 分类 | 续写 | 补全
translate: 翻译 | 译成 | 用英语怎么说
summary: 总结 | 概括 | 摘要
steps: 步骤 | 一步一步 | 做法 | 食谱 | 教程 | 流程 | 过程 | 时间线 | 安装 | 工作原理 | 怎么做菜 | 经过
logic: 谜语 | 推理 | 逻辑 | 猜
choose: 哪个更好 | 哪个好 | 应该选 | 还是 | 值得吗 | 你觉得 | 你最喜欢
roleplay: 你是一 | 假装 | 扮演 | 假设你是 | 想象你是 | 以.*的身份 | 作为一名
fact: 首都 | 谁 | 什么时候 | 哪里 | 哪一年 | 哪年 | 出生 | 发明 | 叫什么 | 最高的 | 最大的 | 最长的 | 人口 | 总统 | 反义词 | 作者 | 在哪
meaning: 什么意思 | 定义 | 是什么 | 什么是 | 含义
recommend: 推荐 | 列出 | 列举 | 举出 | 给我 | 最好的 | 书 | 礼物 | 地方
effect: 影响 | 作用 | 重要性 | 意义 | 角色
people: 孩子 | 父母 | 老板 | 同事 | 朋友 | 团队 | 员工 | 学生 | 家庭 | 客户
health: 睡眠 | 压力 | 健康 | 饮食 | 体重 | 皮肤 | 焦虑 | 失眠
work: 工作 | 职业 | 面试 | 公司 | 钱 | 预算 | 创业
world: 社会 | 环境 | 气候 | 经济 | 文化 | 教育 | 科技 | 城市 | 工业 | 人工智能
^yesno: 吗[？?]?$ | ^是不是 | ^能不能 | 是否
^request: ^请 | ^帮我 | ^给我 | ^能否
^howto: ^如何 | ^怎么 | ^怎样
^why: ^为什么 | ^为何
^what: ^什么
^which: ^哪
^who: ^谁
^when: ^什么时候 | ^哪年
^where: ^哪里
^howmany: ^.{0,12}多少 | ^.{0,8}几个
^followup: ^那 | ^然后 | ^继续 | ^谢谢 | ^你好 | ^为什么[？?]?$ | ^第二 | ^第一个 | ^还有 | ^再 | ^短一点 | ^你确定 | ^详细
anaphora: 第二个 | 第一个 | 第三个 | 第二点 | 第一点 | 第三点 | 你刚才 | 你说的 | 上面 | 上述 | 前面
""",
    "ja": """
mechanism: 仕組み | メカニズム | 原理 | 過程 | 定理 | なぜ起こ
aspects: 観点 | それぞれ | 各 | について | 面から
discuss: 議論 | 分析 | 評価 | 考察 | 論じ
create: 設計 | 作成 | 提案 | 計画を立て | 企画
many: いくつか | さまざまな | 様々な | 主な | 主要な | 重要な | よくある | 代表的な | 三つ | 五つ | 十個 | それぞれ | 各 | 多くの | 色々
list: コツ | 方法 | アイデア | 例を | 戦略 | 提案 | 理由を | 利点 | メリット | デメリット | 欠点 | 長所 | 短所 | 要因 | 原因 | 種類 | 特徴 | 課題 | 習慣 | リスク | 症状 | 兆候 | 対策 | 間違い | 違い | ポイント | 注意点 | いくつか | どんな | 工夫 | 効果
advice: 改善 | 向上 | 克服 | 避ける | 防ぐ | 予防 | 準備 | 減らす | 対処 | 管理 | 高める | 守る | 上手 | 続ける | アドバイス | うまく | 節約 | 良くする | 解消 | 付き合
pros: メリットとデメリット | 長所と短所 | 利点と欠点 | 賛否 | 良い点と悪い点
diff: 違い | 異なる | 比較 | 比べ
howto: どうすれば | どうしたら | どうやって | 方法 | するには | どのように
why: なぜ | どうして | 何故
whatif: もし.*たら | もしも | 仮に | どうなる | としたら
explain: 説明 | 述べ | 紹介 | 解説 | 教えて | 論じ | 分析 | 概要
plan: 計画 | 旅程 | チェックリスト | ガイド | プラン | スケジュール
write: 書いて | 作って | 作成 | 創作 | 考えて
story: 物語 | 詩 | 俳句 | 歌詞 | 小説 | 童話 | ジョーク | 会話文 | 脚本 | 場面 | 独白 | 寓話 | 日記 | 川柳
letter: 手紙 | メール | スローガン | スピーチ | 招待状 | プレスリリース | 広告 | 見出し | キャッチコピー | お礼状 | 退職届 | お知らせ | 商品説明
essay: 作文 | 記事 | 段落 | エッセイ | 論文
code: コード | 関数 | プログラム | スクリプト | アルゴリズム | 実装 | クエリ | 正規表現
tech: ファイル | サーバー | データベース | 配列 | エラー
math: 計算 | 解いて | 求め | 方程式 | 確率 | 証明 | 微分 | 積分 | パーセント | 平方根 | 三角形 | 合計 | 残り | 割る | いくつになり
estimate: いくつ | いくら | どれくらい | 何人 | 何個 | 何回 | 何キロ | 何メートル | 推定 | 約 | 何年 | 何時間 | 何歳
short: 一文で | 一言で | 簡潔に | 短く | はいかいいえ | 答えだけ | 字以内 | 手短に | 二文で | 単語で
format: json | 表形式 | 表に | csv | テンプレート | JSON
rewrite: 書き直 | 言い換え | 添削 | 直して | 短くして | 次の | 以下の | この文 | 分類 | 続きを | 修正
translate: 翻訳 | 訳して | 英語で何 | 英語にして
summary: 要約 | まとめて
steps: 手順 | ステップ | 作り方 | レシピ | 流れ | 順番 | 年表 | 仕組み | インストール | 過程 | 経緯
logic: なぞなぞ | 推理 | 論理 | クイズ
choose: どちらが | どっち | べきですか | 価値があり | あなたの好き | どう思い | 好きな
roleplay: あなたは.*です | になりきって | 演じて | 役を | としてふるまって | の立場で | のふりを
fact: 首都 | 誰 | いつ | どこ | 何年 | 生まれ | 発明 | 名前は | 一番高い | 一番大きい | 最も高い | 最も大きい | 最も長い | 人口 | 大統領 | 反対語 | 作者 | 描いた
meaning: 意味 | 定義 | とは何 | って何 | とは
recommend: おすすめ | 勧め | 挙げて | 列挙 | 提案して | 本を | 贈り物 | プレゼント | 場所
effect: 影響 | 役割 | 重要性 | 効果
people: 子ども | 子供 | 親 | 上司 | 同僚 | 友人 | 友達 | チーム | 社員 | 生徒 | 家族 | 顧客
health: 睡眠 | ストレス | 健康 | 食事 | 体重 | 肌 | 不安 | 腰痛
work: 仕事 | 転職 | 面接 | 会社 | お金 | 予算 | 起業 | 在宅勤務
world: 社会 | 環境 | 気候 | 経済 | 文化 | 教育 | 技術 | 都市 | 産業 | 人工知能
^yesno: (?<!何)(?:です|ます|でしょう)か[？?。]?$ | できますか
^request: ください[。]?$ | お願い | てくれますか | てもらえ
^howto: ^どうすれば | どうしたらいい | ^どうやって | ^どのように | どうすればいい
^why: ^なぜ | ^どうして
^what: ^何 | とは何
^which: ^どの | ^どんな
^who: ^誰
^when: ^いつ
^where: ^どこ
^howmany: 何人 | 何個 | いくつ | 何キロ | 何メートル | 何回
^followup: ^そして | ^それ | ^では | ^じゃあ | ^続け | ^ありがとう | ^こんにちは | ^なぜ(?:ですか)?[？?]?$ | ^二つ目 | ^2つ目 | ^最初の | ^もっと | ^もう一度 | ^次は | ^本当
anaphora: 二つ目 | 2つ目 | 一つ目 | 三つ目 | さっき | 先ほど | あなたの答え | 上の | 前の | それ
""",
}
