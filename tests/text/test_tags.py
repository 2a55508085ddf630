"""Annotators' tags: which bracketed words are, and which may be speech."""

from __future__ import annotations

import pytest

from asr.text.normalize import count_tags, find_asides, find_tags, without_tags


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("[noise] yes (laughs)", ["[noise]", "(laughs)"]),
        ("<unk> <s> <foreign language> <|en|> </s>", ["<unk>", "<s>", "<foreign language>", "<|en|>", "</s>"]),
        ("<laugh>yes</laugh> hm<noise>", ["<laugh>", "</laugh>", "<noise>"]),
        ('<font color="red">there</font> *laughs*', ['<font color="red">', "</font>", "*laughs*"]),
        ("[[speaking French]] th[at] [laughter-yes] [0.5]", ["[[speaking French]]", "[at]", "[laughter-yes]", "[0.5]"]),
        ("{breath} ++noise++ &=laughs (%HESITATION)", ["{breath}", "++noise++", "&=laughs", "(%HESITATION)"]),
        ("(Laughter and applause) (clears throat)", ["(Laughter and applause)", "(clears throat)"]),
        ("(inaudible 00:12:34) (LAUGHS.)", ["(inaudible 00:12:34)", "(LAUGHS.)"]),
        ("\uff3bnoise\uff3d \uff08laughs\uff09", ["\uff3bnoise\uff3d", "\uff08laughs\uff09"]),
        # spoken, or markup of another kind
        ("(and then he said) the (FAA) book(s) (musings) (foreigners came)", []),
        ("{ a / b } {a/b} a < b and c > d, 3<4 and 5>2, <3", []),
        ("*really* 2 * 3 * 4", []),
        ("C++ and D++ R&D a = b", []),
        (f"[{'a long remark ' * 5}]", []),
        ("stray [ and ) and >", []),
    ],
)
def test_tags(text: str, tags: list[str]) -> None:
    assert find_tags(text) == tags
    assert find_tags(without_tags(text)) == []
    rest = text
    for tag in tags:
        rest = rest.replace(tag, " ", 1)
    assert without_tags(text) == rest


def test_what_may_be_spoken_is_told_apart() -> None:
    long = f"[{'a long remark ' * 5}]"
    text = f"(and then he said) [noise] the (FAA) book(s) (laughs) () {long}"
    assert find_asides(text) == ["(and then he said)", "(FAA)", long]


def test_tags_are_counted_with_the_ids_of_their_texts() -> None:
    found = count_tags([("u1", "[b] [a]"), ("u2", "[a] x"), ("u3", ""), ("u4", "[a]")])
    assert list(found.items()) == [("[a]", ["u1", "u2", "u4"]), ("[b]", ["u1"])]
