import os
import stat
import time

import pytest

from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import must_be_writable, remove_leftovers, sha256, verified, write_atomically


def test_unknown_name_offers_the_closest():
    message = str(unknown("system", "tip-adaptor", ["tip_adapter", "coop", "maple"]))
    assert "tip-adaptor" in message and "tip_adapter" in message and "maple" not in message


def test_unknown_name_far_from_all_lists_all():
    assert "coop, maple" in str(unknown("system", "zzz", ["maple", "coop"]))


def test_write_replaces_whole_content_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "sub" / "a.json"
    write_atomically(path, "old and longer")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_written_file_is_as_readable_as_any_other(tmp_path):
    path = write_atomically(tmp_path / "a", b"x")
    plain = tmp_path / "b"
    plain.write_bytes(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_full_disk_keeps_the_old_content(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VlmlabError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VlmlabError) as error:
        write_atomically(tmp_path / "file" / "a", "x")
    assert "\n" not in str(error.value)


def test_a_folder_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    must_be_writable(tmp_path / "new", room=100)
    assert not list((tmp_path / "new").iterdir())

    def full(_):
        assert not list((tmp_path / "new").iterdir()), "a kill at this point would leave something"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VlmlabError, match=r"cannot write .*new: No space left"):
        must_be_writable(tmp_path / "new")


def test_old_leftovers_of_killed_writers_go_and_those_under_way_stay(tmp_path):
    old, new, kept = (tmp_path / name for name in (".a.json.x1.tmp", ".a.json.x2.tmp", "a.json"))
    for path in (old, new, kept):
        path.write_text("")
    for path in (old, kept):
        os.utime(path, (time.time() - 7200,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, kept])
    remove_leftovers(tmp_path / "missing")


def test_a_changed_byte_is_refused(tmp_path):
    path = write_atomically(tmp_path / "weights", b"right")
    pinned = sha256(path)
    assert verified(path, pinned, "rebuild it") == path
    path.write_bytes(b"wrong")
    with pytest.raises(VlmlabError, match="rebuild it"):
        verified(path, pinned, "rebuild it")
    path.unlink()
    with pytest.raises(VlmlabError, match="missing"):
        verified(path, pinned, "rebuild it")
