"""What is missing is told apart from what is broken."""

import pytest
from own_data import call

from mtbkd.app import doctor


@pytest.fixture
def quick(monkeypatch):
    """Nothing is imported for long."""
    monkeypatch.setattr(doctor, "import_module", lambda name: name)


def test_a_whole_installation_is_fine(quick, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MTBKD_DATA", str(tmp_path / "data"))
    code, said, _ = call(monkeypatch, capsys, "doctor")
    assert code == 0
    assert "Nothing is broken." in said
    assert f"{tmp_path / 'data'}, made when it is needed" in said


def test_what_is_absent_is_no_fault_and_what_is_old_is(quick, monkeypatch):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "transformers" else version(n))
    found = doctor.examine()
    assert not found.broken
    assert "absent  hf: without transformers. If you want it: pip install 'mtbkd[hf]'" in found.text
    assert "absent  proteins: without transformers." in found.text
    monkeypatch.setattr(doctor, "_version", lambda n: "1.0" if n == "torch" else "99")
    found = doctor.examine()
    assert found.broken
    assert "BROKEN  needed: torch is 1.0, but >=2.6 is needed" in found.text


def test_what_cannot_be_imported_is_broken(monkeypatch, capsys):
    def imported(name):
        if name == "onnxruntime":
            raise OSError("libfoo.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "import_module", imported)
    code, said, _ = call(monkeypatch, capsys, "doctor")
    assert code == 1
    assert "cannot be imported: OSError: libfoo.so: cannot open shared object file." in said
    assert "Run: pip install 'mtbkd[onnx]'" in said


def test_a_data_folder_that_cannot_be_read_is_broken(quick, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTBKD_DATA", str(tmp_path / "file" / "data"))
    found = doctor.examine()
    assert found.broken
    assert "Set MTBKD_DATA to another folder" in found.text
