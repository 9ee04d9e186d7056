"""Our wording for the items of a question, in the languages of the router's rules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from skeleton_of_thought.templates import PromptTemplate

__all__ = ["ITEM", "NOTES", "NUMBERED"]

ITEM = PromptTemplate("{instruction}\n\n{item}")
"""The user's turn of one item: what all items share comes first, so that caches can hold it."""

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "en": "Here is one of them. Give the result for this one alone, without introduction:",
        "de": "Hier steht eines davon. Gib nur dafür das Ergebnis an, ohne Einleitung:",
        "fr": "En voici un élément. Donne le résultat pour lui seul, sans introduction :",
        "es": "Aquí hay uno de ellos. Da el resultado solo para este, sin introducción:",
        "it": "Eccone uno. Dai il risultato solo per questo, senza introduzione:",
        "pt": "Aqui está um deles. Dê o resultado só para este, sem introdução:",
        "nl": "Hier staat er één van. Geef alleen hiervoor het resultaat, zonder inleiding:",
        "ru": "Вот один из них. Дай результат только для него, без вступления:",
        "zh": "下面是其中一项。只给出这一项的结果，不要开场白：",
        "ja": "以下はそのうちの一つです。前置きなしで、これについての結果だけを書いてください：",
    }
)
"""Stands between the shared words of a list and the item, by language. Without it, models remark that the list has only
one entry."""

NUMBERED: Mapping[str, str] = MappingProxyType(
    {
        "en": "Write one of them alone: number {index} of {count}.",
        "de": "Schreibe nur eines davon: Nummer {index} von {count}.",
        "fr": "N'en écris qu'un : le numéro {index} sur {count}.",
        "es": "Escribe solo uno de ellos: el número {index} de {count}.",
        "it": "Scrivine uno solo: il numero {index} di {count}.",
        "pt": "Escreva apenas um deles: o número {index} de {count}.",
        "nl": "Schrijf er maar één: nummer {index} van {count}.",
        "ru": "Напиши только один из них: номер {index} из {count}.",
        "zh": "只写其中一个：第{index}个，共{count}个。",
        "ja": "そのうち一つだけを書いてください：{count}個中の{index}番目。",
    }
)
"""Asks for one of several separate texts, by language; the numbers make the texts differ."""
