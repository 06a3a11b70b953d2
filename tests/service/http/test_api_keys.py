"""API keys: parsing, lookup, and errors that do not reveal them."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from service.http.api_keys import Keys
from service.settings import Settings

ONE, OTHER = "a-key-of-19-letters", "another+key/of=signs"


def test_a_key_has_its_given_name_or_the_beginning_of_its_digest() -> None:
    keys = Keys([f"ada:{ONE}", OTHER])
    assert (len(keys), keys.name(ONE)) == (2, "ada")
    unnamed = keys.name(OTHER)
    assert unnamed is not None
    assert len(unnamed) == 12
    assert unnamed not in OTHER


@pytest.mark.parametrize("key", ["", ONE[:-1], ONE + "x", ONE.upper(), f"ada:{ONE}", "ada", "ключ", "\udcff"])
def test_other_keys_are_unknown(key: str) -> None:
    assert Keys([f"ada:{ONE}", OTHER]).name(key) is None


def test_every_lookup_compares_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    keys = Keys([ONE, OTHER, ONE + ONE])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (ONE, ONE + ONE, "unknown"):
        keys.name(key)
    assert len(compared) == 3 * 3


def test_one_name_may_have_two_keys_so_that_keys_can_be_rotated() -> None:
    keys = Keys([f"ada:{ONE}", f"ada:{OTHER}"])
    assert keys.name(ONE) == keys.name(OTHER) == "ada"


@pytest.mark.parametrize("entry", ["short", "ada:short", "", ":" + ONE, "a b:" + ONE, ONE + " x", ONE + ":", "é" * 20])
def test_an_invalid_entry_is_reported_by_its_position_and_not_quoted(entry: str) -> None:
    with pytest.raises(
        ValueError, match=r"^API key 2 is invalid: it must be name:key or key, where key has at least 16 "
    ) as error:
        Keys([ONE, entry])
    assert len(entry) < 6 or entry not in str(error.value)


def test_keys_are_read_from_a_variable_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the front end's\nfront:{ONE}\n\n{OTHER}{OTHER}\n")
    keys = Keys.from_settings(Settings(api_keys=f" {OTHER} , ada:{ONE}{ONE} ", api_keys_file=str(file)))
    assert len(keys) == 4
    assert [keys.name(key) for key in (ONE, ONE + ONE)] == ["front", "ada"]


def test_no_keys_are_set_by_default() -> None:
    assert len(Keys.from_settings(Settings())) == len(Keys.from_settings(Settings(api_keys=" "))) == 0


@pytest.mark.parametrize("content", ["", "# nothing\n\n", None])
def test_a_file_without_keys_is_an_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"^API_KEYS_FILE='.*' (contains no key|cannot be read)"):
        Keys.from_settings(Settings(api_keys_file=str(file)))


def test_the_repr_of_settings_contains_no_key() -> None:
    assert ONE not in repr(Settings(api_keys=ONE))
