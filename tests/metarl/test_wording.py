"""One line a cause, and one thing in the singular."""

from metarl.wording import grouped, number_of


def test_one_is_singular_and_nothing_else_is() -> None:
    assert [number_of(n, "more pair") for n in (0, 1, 2, 1200)] == ["0 more pairs", "1 more pair", "2 more pairs",
                                                                    "1,200 more pairs"]  # fmt: skip
    assert number_of(1.0, "round") == "1 round" and number_of(2.5, "round") == "2.5 rounds"


def test_a_cause_is_one_line_that_names_its_agents() -> None:
    said = [
        ("rl2", "trained with family.width=2 (here 3)"),
        ("ppo", "adaptation lowers the return by 12 [5, 20]"),
        ("maml", "adaptation lowers the return by 3.5 [1e-05, 6]"),
        ("maml", "trained with family.width=2 (here 3)"),
    ]
    assert grouped(said) == [
        "rl2, maml: trained with family.width=2 (here 3)",
        "adaptation lowers the return by 12 [5, 20] (ppo), 3.5 [1e-05, 6] (maml)",
    ]
    assert grouped([(name, "unfair") for name in "abc"], everyone=3) == ["all agents: unfair"]
    assert grouped([("a", "2 of rl2"), ("b", "2 of maml3")]) == ["a: 2 of rl2", "b: 2 of maml3"]
