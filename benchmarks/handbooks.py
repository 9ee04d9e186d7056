"""Three small handbooks and an encyclopaedia, and questions with a page for each of their points.

The handbooks cover the same subjects for different houses: a title such as "Heating" identifies a page within one of
them, but not the house. The encyclopaedia has the same four articles about eight things: there a title alone identifies
almost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["HANDBOOKS", "QUESTIONS", "HandbookQuestion"]

HANDBOOKS: dict[str, dict[str, str]] = {
    "hut": {
        "stove": "The stove in the common room is lit at five in the afternoon. Only dry larch is burnt; the logs "
        "lie in the shed behind the kitchen. The damper stays half open until the fire burns by itself.",
        "spring": "A spring above the hut fills the tank, and a filter under the sink cleans it for drinking. The "
        "filter is changed on the first of each month. In a frost the tap in the hall must drip all night.",
        "panels": "Twelve panels on the south roof charge the batteries, which last for two days without sun. "
        "Below 30 per cent the dish washer and the dryer stay off, and lamps are dimmed.",
        "beds": "There are 34 beds in five rooms. Whoever arrives after eight in the evening calls from the car "
        "park. Dogs sleep in the drying room, and boots stay in the porch.",
        "meals": "Dinner is served at half past six, and soup is kept warm for those who come late. Bread is "
        "baked on Tuesdays and Fridays. Breakfast is on the table from five, for parties that climb.",
        "barometer": "The barometer in the hall is read at seven and at noon. When it falls by more than four "
        "points, tours over the ridge are called off. The forecast is pinned to the door.",
        "siren": "One long tone of the siren on the roof means: all come back at once. The stretcher hangs beside "
        "the door, and the helicopter lands on the meadow below. The valley's doctor answers on channel three.",
        "lift": "Glass and tins are crushed and go down with the cable lift on Mondays, and fresh food comes up "
        "with it. Ash is kept in an iron bin for three days before it is moved.",
        "closing": "The hut closes on the last Sunday in October. Pipes are drained, mattresses hung up and the "
        "shutters bolted from inside. The small room with six bunks stays unlocked all year.",
        "till": "A night costs 28 francs, for members of the club 16. Cash goes into the iron box under the "
        "counter, and the day's sum is written into the red book. There is no card reader up here.",
        "helpers": "Two helpers live in the hut from June on, for board and 40 francs a day. They have one day "
        "off each week, never a Saturday. Their room is above the kitchen.",
        "paths": "The paths to the two passes are walked in June, and faded marks are painted anew. A broken "
        "bridge is told to the club's warden. Snow fields are marked by poles.",
    },
    "library": {
        "desk": "The reading rooms are open from nine to six, on Thursdays until nine, never on Sundays. Half an "
        "hour before the end a bell rings and lamps on the upper floor go out.",
        "loans": "Books are lent for three weeks and films for one. A loan is renewed twice unless somebody waits "
        "for it. Dictionaries and newspapers do not leave the house.",
        "cards": "A card is free for children, and 20 euros a year for all others. Whoever loses it pays three "
        "euros for a new one. A late book costs 30 cents a day, up to its price.",
        "shelves": "New titles are stamped, given a number by subject and put on the third shelf from the door. "
        "What nobody asked for in six years is sold at the autumn sale.",
        "computers": "Eight computers stand by the window, an hour for each reader. The printer takes coins, ten "
        "cents a page. Games are allowed after four.",
        "children": "A story is read aloud on Wednesdays at three, for those from four to eight. School classes "
        "come in the mornings, and their teachers announce them a week before.",
        "quiet": "Telephones are silent on the upper floor, and food stays in the hall. Bags go into the lockers. "
        "Who disturbs others is asked twice and then sent home.",
        "boiler": "A gas boiler in the cellar warms the rooms to twenty degrees. It is bled in September. When "
        "its red light burns, the janitor is called and the upper floor closed.",
        "alarm": "When the alarm sounds, all leave by the two stairs and meet at the fountain. The extinguishers "
        "hang at each door. The fire brigade has a plan of the cellar.",
        "janitor": "The floors are swept at seven in the morning and the windows washed in spring. Paper goes "
        "into the blue container, which is emptied every second Friday.",
        "staff": "Three librarians share the week, and students help on Saturdays. Who is ill tells the head "
        "before eight. Holidays are agreed upon in January.",
        "damage": "A torn page is mended with thin paper and paste, never with tape. Wet books are stood open in "
        "front of a fan. What cannot be saved is paid for by its reader.",
    },
    "garden": {
        "plots": "There are 40 plots of 60 square metres. Whoever wants one writes their name on the list at the "
        "gate, and waits for two years or so. A plot that lies fallow until June goes to the next one.",
        "rent": "A plot is 90 euros a year, to be sent to the treasurer in February, and a deposit of 50 when it "
        "is taken. Six hours of common work are due, or ten euros for each.",
        "pump": "The pump at the pond runs from April to October, from six to nine in the evening. Cans are "
        "filled at the four tanks. Sprinklers are forbidden in July and August.",
        "shed": "Spades, the shredder and two barrows are in the shed and lent for a day. What is broken is hung "
        "on the red hook. Blades are ground in March.",
        "compost": "Each plot has a heap, and the large one behind the shed takes what is left over. It is turned "
        "in May and in September. Cooked food and sick plants go into the town's brown bin.",
        "pests": "Slugs are collected at night, and nets keep the butterflies from the cabbage. Poisons of any "
        "kind are forbidden. Lady birds may be ordered from the chairwoman.",
        "trees": "Apple trees are pruned in February on a dry day, cherries after the harvest. No tree may grow "
        "higher than four metres or stand nearer to a fence than two.",
        "gate": "The gate is open while it is light. Every tenant has a key for the night, and visitors come with "
        "one of them. Cars stay on the road but for the first Saturday in a month.",
        "bees": "Six hives stand behind the hedge, and nobody walks in front of them. Their keeper harvests in "
        "July and gives each tenant a jar. A swarm is told to him at once.",
        "frost": "Before the first frost the taps are opened and the pipes emptied. Dahlias are dug up and kept "
        "in sand. Roses are covered with fir, and young stems painted white.",
        "party": "On the second Sunday in August there is a feast with a fire and a long table. Music ends at "
        "ten. Each tenant brings a cake or stands at the grill for an hour.",
        "accident": "A box with bandages hangs in the porch of the shed, and beside it the number of the doctor "
        "in the Mill Lane. Who is cut by a tool tells the chairwoman, for the insurance.",
    },
    "encyclopaedia": {
        "honey origin": "Honey was taken from wild bees long before hives were kept; a painting in a Spanish cave "
        "shows a gatherer on a rope. Monks later spread the keeping of bees, for the wax of candles.",
        "honey making": "Bees thicken nectar by fanning until little water is left, and close the cell. The "
        "keeper lifts the combs of honey out, cuts the lids off and spins them in a drum.",
        "honey uses": "Honey sweetens tea and gingerbread, keeps cakes moist and is brewed into mead. It soothes "
        "a cough, and was once laid upon wounds.",
        "honey storage": "Honey keeps for years in a closed jar, dark and dry. It turns solid in the cold; a warm "
        "bath makes it liquid again, but it must not boil.",
        "bread origin": "The first bread was flat and baked on hot stones. In Egypt a dough was forgotten, rose "
        "by itself, and was baked all the same.",
        "bread making": "Flour, water, salt and yeast are kneaded, left to rise and shaped. A bread is done when "
        "it sounds hollow from below.",
        "bread uses": "Bread is eaten with soup and cheese. What is stale becomes crumbs, dumplings or a pudding "
        "with apples.",
        "bread storage": "Bread stays fresh in a clay pot for four days. In the fridge it goes stale sooner; "
        "sliced and frozen it lasts for three months.",
        "glass origin": "Glass beads were made in Mesopotamia. The Romans blew glass into vessels, and the island "
        "of Murano kept its recipes secret under threat of death.",
        "glass making": "Sand, soda and lime melt at 1500 degrees. Panes of glass float on a bath of tin, and "
        "cool so slowly that no tension remains.",
        "glass uses": "Glass is in windows, bottles, lenses and cables that carry light. As wool it keeps houses warm.",
        "glass storage": "Panes of glass are kept upright with paper between them, in a dry place. Moisture "
        "between two of them leaves stains that do not go away.",
        "wool origin": "Sheep were first kept for meat; those with much wool were chosen over thousands of years. "
        "In the Middle Ages it made Flanders and England rich.",
        "wool making": "Sheep are shorn in spring. The wool is washed, combed into one direction and spun into yarn.",
        "wool uses": "Wool is knitted into jumpers and felted into hats. It is warm even when it is wet, and hard "
        "to burn.",
        "wool storage": "Wool is put away clean, since moths look for sweat. Cedar and lavender keep them off; a "
        "week in the freezer kills them.",
        "salt origin": "Salt was dug in Hallstatt three thousand years ago. Towns grew along its roads, and taxes "
        "on it led to revolts.",
        "salt making": "Sea water dries in flat basins until salt can be raked together. Elsewhere water is led "
        "into a mountain, pumped out as brine and boiled.",
        "salt uses": "Salt seasons food, pickles cabbage and cures ham. Most of it goes into chemistry and onto "
        "icy roads.",
        "salt storage": "Salt never spoils but draws water from the air. A few grains of rice keep it dry, and it "
        "eats metal lids.",
        "tea origin": "A Chinese emperor is said to have found tea when leaves fell into his hot water. Monks "
        "took the seeds to Japan, and clippers raced with the harvest to London.",
        "tea making": "The youngest leaves of tea are plucked by hand and withered. Rolled and left to the air "
        "they turn black; heated at once they stay green.",
        "tea uses": "Tea wakes people up and is drunk with milk, mint or lemon. Cold it colours eggs and paper.",
        "tea storage": "Tea takes on any smell, so it stays in a closed tin, away from spices. Green ones lose "
        "their scent within a year.",
        "paper origin": "Paper was made in China from bark and old nets. Prisoners of a battle brought the art to "
        "Samarkand, and from there it came to Spain.",
        "paper making": "Wood is boiled until its fibres part. The pulp flows onto a wire, drains, is pressed "
        "between felts and dried over hot rolls.",
        "paper uses": "Paper is written upon, folded into boxes, and filters coffee. Bank notes have cotton in it.",
        "paper storage": "Paper lies flat, in the dark and at an even climate. Acid makes old sheets brittle, and "
        "silver fish eat the glue.",
        "rubber origin": "In Mexico children played with balls of rubber before the Spaniards came. Seeds were "
        "smuggled out of Brazil, and plantations grew in Malaya.",
        "rubber making": "Cuts in the bark let milk drip into cups. Acid makes it clot; heated with sulphur, "
        "rubber becomes elastic for good.",
        "rubber uses": "Rubber is in tyres, boots, seals and gloves. Bridges rest upon blocks of it.",
        "rubber storage": "Rubber ages in the sun and near motors, whose sparks make ozone. Talcum keeps sheets "
        "of it from sticking together.",
    },
}
"""Pages by their names, in each handbook."""

_ASPECTS = {"Origin": "origin", "How it is made": "making", "What it is good for": "uses", "Storage": "storage"}


class HandbookQuestion(NamedTuple):
    """A question about one handbook, and for each title of a skeleton the page that answers it."""

    handbook: str
    question: str
    points: dict[str, str]


QUESTIONS = (
    HandbookQuestion(
        "hut",
        "What should a new keeper of the hut know about water, power, weather and guests?",
        {"Water": "spring", "Power": "panels", "Weather": "barometer", "Guests": "beds"},
    ),
    HandbookQuestion(
        "hut",
        "How do I run the hut?",
        {"Heating": "stove", "Food": "meals", "Payment": "till", "Rubbish": "lift", "Staff": "helpers"},
    ),
    HandbookQuestion(
        "hut",
        "What has to be done in the hut before the winter comes?",
        {
            "Shut the house": "closing",
            "Firewood": "stove",
            "Last deliveries": "lift",
            "Protect from freezing": "spring",
        },
    ),
    HandbookQuestion(
        "hut",
        "How do I keep visitors of the hut safe in the mountains?",
        {
            "Watch the forecast": "barometer",
            "Emergencies": "siren",
            "Mark the routes": "paths",
            "Late arrivals": "beds",
        },
    ),
    HandbookQuestion(
        "hut",
        "What does a stay at the hut look like for somebody who comes with a dog and wants to leave early?",
        {"Prices": "till", "Sleeping": "beds", "Eating": "meals", "Electricity": "panels"},
    ),
    HandbookQuestion(
        "library",
        "What should a new librarian know about fees, opening hours, rules and the building?",
        {"Fees": "cards", "Opening hours": "desk", "Rules of conduct": "quiet", "Heating": "boiler"},
    ),
    HandbookQuestion(
        "library",
        "How does the library work?",
        {
            "Borrowing": "loans",
            "Membership": "cards",
            "Technology": "computers",
            "Staff": "staff",
            "New books": "shelves",
        },
    ),
    HandbookQuestion(
        "library",
        "How can the library take good care of its books?",
        {"Repairs": "damage", "Sorting": "shelves", "Late returns": "cards", "Cleanliness": "janitor"},
    ),
    HandbookQuestion(
        "library",
        "What can families do in the library on a rainy afternoon?",
        {"Story time": "children", "Games": "computers", "Take home a film": "loans", "Snacks": "quiet"},
    ),
    HandbookQuestion(
        "library",
        "What has to be done in the library when something goes wrong?",
        {"Fire": "alarm", "Water damage": "damage", "Cold rooms": "boiler", "Illness": "staff", "Noise": "quiet"},
    ),
    HandbookQuestion(
        "garden",
        "What should a new tenant of the garden know about money, water, tools and animals?",
        {"Money": "rent", "Water": "pump", "Tools": "shed", "Animals": "bees"},
    ),
    HandbookQuestion(
        "garden",
        "How do I get a plot in the garden?",
        {"Waiting list": "plots", "Costs": "rent", "Access": "gate", "Duties": "rent"},
    ),
    HandbookQuestion(
        "garden",
        "How do I grow healthy vegetables and fruit in the garden without chemicals?",
        {"Pest control": "pests", "Soil": "compost", "Watering": "pump", "Pruning": "trees", "Pollination": "bees"},
    ),
    HandbookQuestion(
        "garden",
        "What has to be done in the garden before the winter comes?",
        {"Taps and pipes": "frost", "Garden waste": "compost", "Delicate flowers": "frost", "Equipment": "shed"},
    ),
    HandbookQuestion(
        "garden",
        "How do we keep peace among the neighbours in the garden?",
        {"Celebrate together": "party", "Height of trees": "trees", "Noise": "party", "Visitors": "gate"},
    ),
    *(
        HandbookQuestion(
            "encyclopaedia", ask.format(thing), {title: f"{thing} {page}" for title, page in _ASPECTS.items()}
        )
        for thing, ask in {
            "honey": "Tell me all about {}.",
            "bread": "What should I know about {}?",
            "glass": "Where does {} come from, and what do we do with it?",
            "wool": "Explain {} to a child.",
            "salt": "Give me an overview of {}.",
            "tea": "What is there to know about {}?",
            "paper": "I want to write an essay about {}. What belongs into it?",
            "rubber": "What is {}?",
        }.items()
    ),
)
