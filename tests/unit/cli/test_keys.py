import re

import pytest


def test_keys_of_another_folder(darkroom, tmp_path):
    """--data names the service's folder, as for `serve`; what is made there is in no other."""
    other = ("--data", tmp_path / "other")
    assert darkroom("keys", "create", "shop", *other).code == 0
    assert "shop" in darkroom("keys", "list", *other).out
    assert darkroom("keys", "list").out == ""
    assert darkroom("keys", "revoke", "shop", *other).code == 0


def test_create_prints_the_key_alone(darkroom):
    """Standard output is the key and nothing else, so that a script can take it as it is."""
    ran = darkroom("keys", "create", "laptop", "--credits", 5)
    assert ran.code == 0
    assert re.fullmatch(r"dk_[\w-]{40}\n", ran.out)
    assert "laptop" in ran.err


def test_list_shows_what_was_created(darkroom):
    """The table has each key's name, credits, rate and models, and never a secret."""
    secret = darkroom("keys", "create", "shop", "--credits", 1500, "--rate-per-minute", 60).out.strip()
    darkroom("keys", "create", "bot", "--models", "qwen-image-edit-plus, qwen-image-edit-plus-relight")
    ran = darkroom("keys", "list")
    shop, bot = ran.out.splitlines()[1:]
    assert re.match(r"shop +1,500 +0 +0 +60 +all +\d{4}-\d\d-\d\d \d\d:\d\d UTC +–", shop)
    assert re.match(r"bot +1,000,000 +0 +0 +– +qwen-image-edit-plus, qwen-image-edit-plus-relight ", bot)
    assert secret not in ran.out + ran.err


def test_revoke(darkroom):
    """A revoked key shows when, and its name is free again."""
    darkroom("keys", "create", "old")
    assert darkroom("keys", "revoke", "old").code == 0
    assert not darkroom("keys", "list").out.splitlines()[1].rstrip().endswith("–")
    assert darkroom("keys", "create", "old").code == 0


def test_an_empty_ledger_says_what_to_do(darkroom):
    """Without keys there is no empty table."""
    ran = darkroom("keys", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "darkroom keys create" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "a", "--models", "qwen-image-edit-plus,qwen-nope"), "qwen-nope"),
        (("create", "a", "--models", ","), "--models"),
        (("create", "a", "--credits", "-1"), "--credits"),
        (("create", "a", "--rate-per-minute", "0"), "--rate-per-minute"),
        (("revoke", "nobody"), "nobody"),
    ],
)
def test_bad_usage_names_what_is_wrong(darkroom, words, said):
    """A refused command exits 2, names the culprit, and leaves no key behind."""
    ran = darkroom("keys", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert darkroom("keys", "list").out == ""


def test_a_name_is_used_once(darkroom):
    """Two keys in use never share a name."""
    darkroom("keys", "create", "twice")
    ran = darkroom("keys", "create", "twice")
    assert (ran.code, ran.out) == (2, "")
    assert "twice" in ran.err
