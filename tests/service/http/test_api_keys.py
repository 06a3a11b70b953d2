"""Keys: what is one, which are known, and what is told of them."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from service.http.api_keys import Keys
from service.settings import Settings

ONE, OTHER = "a-key-of-19-letters", "another+key/of=signs"


def test_a_key_is_known_by_its_name_or_by_the_beginning_of_its_digest() -> None:
    keys = Keys([f"ada:{ONE}", OTHER])
    assert (len(keys), keys.name(ONE)) == (2, "ada")
    unnamed = keys.name(OTHER)
    assert unnamed is not None
    assert len(unnamed) == 12
    assert unnamed not in OTHER


@pytest.mark.parametrize("given", ["", ONE[:-1], ONE + "x", ONE.upper(), f"ada:{ONE}", "ada", "ключ", "\udcff"])
def test_whatever_else_is_not_known(given: str) -> None:
    assert Keys([f"ada:{ONE}", OTHER]).name(given) is None


def test_each_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    keys = Keys([ONE, OTHER, ONE + ONE])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given in (ONE, ONE + ONE, "unknown"):
        keys.name(given)
    assert len(compared) == 3 * 3


def test_one_name_may_have_two_keys_so_that_they_can_be_changed() -> None:
    keys = Keys([f"ada:{ONE}", f"ada:{OTHER}"])
    assert keys.name(ONE) == keys.name(OTHER) == "ada"


@pytest.mark.parametrize("entry", ["short", "ada:short", "", ":" + ONE, "a b:" + ONE, ONE + " x", ONE + ":", "é" * 20])
def test_what_is_no_key_is_refused_by_its_place_and_not_told(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^API key 2 is not allowed: an entry is name:key or key, of 16 ") as error:
        Keys([ONE, entry])
    assert len(entry) < 6 or entry not in str(error.value)


def test_keys_come_from_a_variable_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the front end's\nfront:{ONE}\n\n{OTHER}{OTHER}\n")
    keys = Keys.of(Settings(api_keys=f" {OTHER} , ada:{ONE}{ONE} ", api_keys_file=str(file)))
    assert len(keys) == 4
    assert [keys.name(key) for key in (ONE, ONE + ONE)] == ["front", "ada"]


def test_without_keys_there_are_none() -> None:
    assert len(Keys.of(Settings())) == len(Keys.of(Settings(api_keys=" "))) == 0


@pytest.mark.parametrize("content", ["", "# nothing\n\n", None])
def test_a_file_without_a_key_lets_nobody_in(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"^API_KEYS_FILE='.*' (has no key in it|cannot be read)"):
        Keys.of(Settings(api_keys_file=str(file)))


def test_settings_that_are_printed_have_no_key_in_them() -> None:
    assert ONE not in repr(Settings(api_keys=ONE))
