import pytest

from expressivegan.data.classes import NONE_SHOWN, choose
from expressivegan.data.layout import Found, Layout
from expressivegan.errors import InputError


def several(*findings: str, classes: tuple[str, ...] = ("No Finding", "Mass", "Nodule")) -> Layout:
    layout = Layout("nih", "", classes, True, aliases={"PNEUMONIA": ("BACTERIA", "VIRUS")})
    for i, text in enumerate(findings):
        labels = tuple(text.split("|"))
        layout.found.append(Found(f"{i}.png", labels[0] if len(labels) == 1 else "", str(i), "train", None, labels))
    return layout


def outcome(layout: Layout, rule: str | None) -> dict[str, str]:
    chosen = choose(layout, rule, "set")
    return {f.path: f.label for f in chosen.found} | {r.path: r.reason for r in chosen.rejected}


SET = several("No Finding", "Mass", "Mass|Nodule", "Effusion|Mass", "Effusion", "Nodule")


def test_an_image_of_exactly_one_chosen_class_is_used() -> None:
    assert outcome(SET, "NORMAL,Mass,Nodule") == {
        "0.png": "NORMAL",
        "1.png": "Mass",
        "2.png": "ambiguous: shows Mass and Nodule",
        "3.png": "Mass",
        "4.png": NONE_SHOWN,
        "5.png": "Nodule",
    }


def test_findings_are_gathered() -> None:
    chosen = choose(SET, "Opacity=Nodule|mass, normal", "set")
    assert chosen.classes == ("Opacity", "normal")
    assert [f.label for f in chosen.found] == ["normal", "Opacity", "Opacity", "Opacity", "Opacity"]
    assert SET.rejected == []  # what is given stays as it is


def test_without_a_rule_every_finding_is_a_class_as_long_as_images_show_one() -> None:
    assert outcome(several("Mass", "No Finding"), None) == {"0.png": "Mass", "1.png": "No Finding"}
    with pytest.raises(InputError) as caught:
        choose(SET, None, "set")
    assert str(caught.value) == (
        "classes (=None) must say which findings to tell apart, since images of set show several (2.png: Mass and "
        "Nodule); there are Mass (3), Effusion (2), Nodule (2), No Finding (1); try classes='No Finding,Mass'"
    )


def test_case_matters_only_where_it_must() -> None:
    assert outcome(several("mass", "Mass"), "Mass") == {"0.png": NONE_SHOWN, "1.png": "Mass"}
    assert outcome(several("mass", "nodule"), "MASS,Nodule") == {"0.png": "MASS", "1.png": "Nodule"}
    with pytest.raises(InputError, match="MASS may mean Mass or mass; write it exactly"):
        choose(several("mass", "Mass"), "MASS", "set")


def test_names_for_several_findings() -> None:
    layout = several("NORMAL", "BACTERIA", "VIRUS")
    assert outcome(layout, "Normal,Pneumonia") == {"0.png": "Normal", "1.png": "Pneumonia", "2.png": "Pneumonia"}


def test_a_name_with_a_comma_is_quoted() -> None:
    assert outcome(several("normal, benign", "malignant"), '"normal, benign",malignant') == {
        "0.png": "normal, benign",
        "1.png": "malignant",
    }


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ("NORMAL,Hernia", r"nothing shows Hernia; there are Mass \(3\), Effusion \(2\)"),
        ("Mass,Mass", "names Mass twice"),
        ("Mass,Opacity=Mass|Nodule", "puts Mass into both Mass and Opacity"),
        ("Mass,,Nodule", "has an empty name"),
        ("A=", "has an empty name"),
        ("", "names no class"),
    ],
)
def test_rules_that_make_no_sense(rule: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        choose(SET, rule, "set")
