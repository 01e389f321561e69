"""Images of one's own: read from files, folders and arrays, drawn, and refused by name."""

import io
import re
import warnings

import numpy as np
import pytest
import torch
import yaml
from own_data import FAST, call
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtbkd.inputs.images.kind import Images, images
from mtbkd.inputs.images.opening import decode, look
from mtbkd.inputs.images.reading import digest_of, read_images_table
from mtbkd.inputs.numbers import numbers
from mtbkd.student.convolutional import convolutional
from mtbkd.types import InputError

SIDE = 8


def picture(row: int, side: int = SIDE, colours: bool = False) -> Image.Image:
    """A bright left or right half, with some noise."""
    pixels = np.random.default_rng(row).integers(0, 60, (side, side, 3), dtype=np.uint8)
    half = slice(0, side // 2) if row % 2 else slice(side // 2, side)
    pixels[:, half] += 150
    return Image.fromarray(pixels if colours else pixels[..., 0])


def fill(folder, n: int = 40) -> list[str]:
    """A folder of images for each of two classes; returns their ids."""
    names = []
    for row in range(n):
        name = f"{('right', 'left')[row % 2]}/{row:03d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(row).save(folder / name)
        names.append(name)
    return names


def rows_of(path, column="path", **how):
    table, _ = read_images_table(path, column)
    return images("id", column, **how).check(table.with_ids("id", ""))


def test_a_folder_is_classes_ids_and_pixels(tmp_path):
    names = fill(tmp_path / "x", 6)
    picture(7).save(tmp_path / "x" / "loose.png")
    (tmp_path / "x" / "notes.txt").write_text("words")
    table, notes = read_images_table(tmp_path / "x", "path")
    assert sorted(table.words("id")) == sorted([*names, "loose.png"])
    labels = dict(zip(table.words("id"), table.words("label"), strict=True))
    assert labels["loose.png"] == ""
    assert labels["left/001.png"] == "left"
    assert "1 files" in notes[0]
    assert "notes.txt" in notes[0]
    rows = rows_of(tmp_path / "x")
    read = images("id", "path").tensor(rows.values)
    assert (read.dtype, read.shape) == (torch.uint8, (7, 1, SIDE, SIDE))
    where = rows.ids.index("right/002.png")
    np.testing.assert_array_equal(read[where, 0].numpy(), np.asarray(picture(2)))
    before = digest_of(tmp_path / "x")
    picture(9).save(tmp_path / "x" / "left" / "more.png")
    assert digest_of(tmp_path / "x") != before


@pytest.mark.parametrize("colours", [False, True])
def test_arrays_and_files_are_read_alike(tmp_path, colours):
    drawn = [picture(row, colours=colours) for row in range(5)]
    stacked = np.stack([np.asarray(one) for one in drawn])
    ids = np.array([f"i{row}" for row in range(5)])
    np.savez(tmp_path / "a.npz", id=ids, x=stacked)
    for name, one in zip(ids, drawn, strict=True):
        one.save(tmp_path / f"{name}.png")
    lines = ["id,file", *(f"{name},{name}.png" for name in ids)]
    (tmp_path / "b.csv").write_text("\n".join(lines) + "\n")
    first, second = rows_of(tmp_path / "a.npz", "x"), rows_of(tmp_path / "b.csv", "file")
    assert first.about == second.about == {"size": [8, 8], "channels": 3 if colours else 1}
    kind = images("id", "x")
    assert torch.equal(kind.tensor(first.values), kind.tensor(second.values))
    asked = kind.ask(first.values, np.array([3, 0]))
    np.testing.assert_array_equal(asked, kind.tensor(first.values)[[3, 0]].numpy())


def test_sizes_depth_turning_and_transparency(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((6, 4), 256 * 77, np.uint16)).save(path)  # 16 bits
    assert look(path, "a") == (6, 4, 1)
    assert decode(path, "a", (6, 4), 1).tolist() == np.full((1, 6, 4), 77).tolist()
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(path)
    assert decode(path, "a", (4, 4), 3).min() == 255  # white, not red
    wide = Image.fromarray(np.arange(8, dtype=np.uint8).reshape(2, 4).repeat(1, 0) * 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(tmp_path / "b.png", exif=exif)
    assert look(tmp_path / "b.png", "b") == (4, 2, 1)
    np.testing.assert_array_equal(
        decode(tmp_path / "b.png", "b", (4, 2), 1)[0], np.rot90(np.asarray(wide), -1)
    )
    # the most common size, at most 64 on a side, its proportions kept
    for row, size in enumerate([(200, 100), (200, 100), (10, 10)]):
        picture(0).resize(size).save(tmp_path / f"s{row}.png")
    (tmp_path / "s.csv").write_text("id,file\n" + "".join(f"{i},s{i}.png\n" for i in range(3)))
    assert rows_of(tmp_path / "s.csv", "file").about["size"] == [32, 64]
    assert rows_of(tmp_path / "s.csv", "file", size=(9, 7)).values.size == (9, 7)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header says this size."""
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data = io.BytesIO()
    picture(0, colours=True).save(data, "PNG")
    return data.getvalue()[:8] + chunk + data.getvalue()[33:]


def test_each_bad_image_is_one_message_that_names_it(tmp_path):
    names = fill(tmp_path / "x", 6)
    folder = tmp_path / "x"
    whole = (folder / names[0]).read_bytes()
    frames = [picture(row) for row in range(3)]
    bad = {
        "text.png": b"words",
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "bomb.png": png_of_size(60000, 60000),
        "huge.png": png_of_size(9000, 9000),
        "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "list.csv").write_text(
        "id,file\n" + "".join(f"row-{n},x/{n}\n" for n in [*bad, "moves.gif", "lost.png", names[1]])
    )
    with pytest.raises(InputError) as headers:
        rows_of(tmp_path / "list.csv", "file")
    faults = headers.value.faults
    told = {re.search(r"id 'row-([^']+)'", fault)[1]: fault for fault in faults}  # type: ignore[index]
    assert set(told) == {*bad, "moves.gif", "lost.png"}
    assert all(str(tmp_path / "x" / name) in fault for name, fault in told.items())
    assert "several frames" in told["moves.gif"]
    assert "million pixels" in told["bomb.png"]
    assert "9000 by 9000" in told["huge.png"]
    assert "it is not there" in told["lost.png"]
    assert "one that is damaged" in told["cut.png"]


def test_three_hundred_broken_images_end_in_messages(tmp_path):
    """Bytes cut, turned and inserted: each is read, or refused by name; nothing else happens."""
    chance = np.random.default_rng(5)
    sources = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        data = io.BytesIO()
        more = {"pnginfo": PngInfo()} if kind == "PNG" else {}
        picture(1, 16, colours=True).save(data, kind, **more)
        sources.append(data.getvalue())
    refused = 0
    for row in range(300):
        broken = bytearray(sources[row % len(sources)])
        for _ in range(int(chance.integers(1, 8))):
            place = int(chance.integers(0, max(1, len(broken))))
            match chance.integers(0, 3):
                case 0:
                    broken[place : place + 1] = bytes([chance.integers(256)])
                case 1:
                    del broken[place:]
                case 2:
                    broken[place:place] = chance.bytes(5)
        path = tmp_path / f"{row}.png"
        path.write_bytes(bytes(broken))
        one = Images((f"r{row}",), (path,), tmp_path, (8, 8), 3)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert images("id", "x").tensor(one).shape == (1, 3, 8, 8)
        except InputError as error:
            refused += 1
            (fault,) = error.faults
            assert f"id 'r{row}'" in fault
            assert "\n" not in fault
    assert refused > 100


def test_the_network_fits_the_data():
    for shape, most in (((1, 8, 8), 8_000), ((3, 32, 32), 21_000), ((3, 5, 300), 80_000)):
        some = torch.randint(256, (6, *shape), dtype=torch.uint8)
        network = convolutional(some, 10)
        assert 5_000 < sum(p.numel() for p in network.parameters()) <= most
        assert network(some).shape == (6, 10)
    flat = network[0](some)
    assert abs(float(flat.mean())) < 0.05
    assert float(flat.std()) == pytest.approx(1.0, abs=0.05)


def configure(folder, **more):
    ids = fill(folder / "x")
    for name, sharp in (("one", 0.9), ("two", 0.7)):
        lines = ["id,left,right"]
        for key in ids:
            left = sharp if key.startswith("left") else 1 - sharp
            lines.append(f"{key},{left},{1 - left}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    teachers = {name: {"table": f"{name}.csv", "kind": "probs"} for name in ("one", "two")}
    fast = {key: value for key, value in FAST.items() if key != "student"}
    prior = {"power": 1.0, "discount": 0.0}
    values = {"own": {"examples": "x", "teachers": teachers}, "prior": prior} | fast | more
    (folder / "my.yaml").write_text(yaml.safe_dump(values))
    return folder / "my.yaml"


def test_from_a_folder_of_images_to_a_report_with_pictures(tmp_path, monkeypatch, capsys):
    path = configure(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, error = call(monkeypatch, capsys, "run", path, "--out", "r")
    assert code == 0, error
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') >= 5
    # a run keeps what it has read: nothing needs the folder any more but its names
    new = tmp_path / "new"
    new.mkdir()
    picture(101).save(new / "a.png")
    picture(102).resize((31, 17)).save(new / "b.png")
    code, _, error = call(monkeypatch, capsys, "predict", "r", new, "--out", "p.csv")
    assert code == 0, error
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert [line.split(",")[0].strip('"') for line in lines] == ["id", "a.png", "b.png"]
    (new / "c.png").write_bytes(b"no image")
    code, _, error = call(monkeypatch, capsys, "predict", "r", new, "--out", "q.csv")
    assert code == 2
    assert "c.png" in error
    assert not (tmp_path / "q.csv").exists()


def test_a_damaged_image_stops_a_run_before_anything_is_written(tmp_path, monkeypatch, capsys):
    path = configure(tmp_path)
    broken = tmp_path / "x" / "left" / "001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    code, _, error = call(monkeypatch, capsys, "run", path, "--out", tmp_path / "r")
    assert code == 2
    assert error.count("Expected an image in") == 1
    assert "id 'left/001.png'" in error
    assert [p.name for p in (tmp_path / "r").rglob("*") if p.is_file()] == ["config.yaml"]


NETWORK = """
import torch
from torch import nn

def net(shape, n_outputs):
    with open("ran.txt", "a") as file:
        file.write("x")
    layers = nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 4), nn.ReLU()
    class Scaled(nn.Module):
        def forward(self, x):
            return x.float() / 255
    return nn.Sequential(Scaled(), *layers, nn.Linear(4, n_outputs))

def wrong(shape, n_outputs):
    return nn.Sequential(nn.Flatten(), nn.Identity())
"""


def test_a_network_of_ones_own_runs_only_on_ones_word(tmp_path, monkeypatch, capsys):
    path = configure(tmp_path, student={"network": "my_students:net", "sampled": ["4.*"]})
    (tmp_path / "my_students.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    code, _, error = call(monkeypatch, capsys, "run", path, "--out", "r")
    assert code == 0, error
    ran = (tmp_path / "ran.txt").read_text()
    picture(1).save("a.png")
    code, _, error = call(monkeypatch, capsys, "predict", "r", "a.png", "--out", "p.csv")
    assert code == 2
    assert "--network my_students:net" in error
    assert (tmp_path / "ran.txt").read_text() == ran
    code, _, error = call(
        monkeypatch, capsys, "predict", "r", "a.png", "--out", "p.csv", "--network", "other:net"
    )
    assert code == 2
    assert "Expected --network my_students:net" in error
    assert (tmp_path / "ran.txt").read_text() == ran
    told = ("--network", "my_students:net")
    code, _, error = call(monkeypatch, capsys, "predict", "r", "a.png", "--out", "p.csv", *told)
    assert code == 0, error
    assert (tmp_path / "ran.txt").read_text() != ran


@pytest.mark.parametrize(
    ("own", "student", "message"),
    [
        (
            {"labels": "y", "image": "path", "text": "w"},
            {},
            "Expected one kind of input for the student",
        ),
        ({"size": [8, 8], "examples": "a.csv", "labels": "y"}, {}, "Expected a size beside images"),
        ({}, {"kind": "text"}, "Expected a student of the kind auto or cnn or mlp for images"),
        ({}, {"kind": "encoder"}, "name own.encoder"),
        ({}, {"network": "net"}, "Expected a network as 'module:function'"),
        ({}, {"sampled": ["a"]}, "Expected patterns of sampled parameters beside a network"),
        ({}, {"kind": "cnn", "network": "a:b"}, "Expected a network of your own or a kind"),
        ({"encoder": "a"}, {"encoder": "b"}, "Expected one encoder of the student"),
    ],
)
def test_what_does_not_go_together_is_told(own, student, message, tmp_path, monkeypatch, capsys):
    path = configure(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["own"] |= own
    path.write_text(yaml.safe_dump(values | {"student": student}))
    code, _, error = call(monkeypatch, capsys, "run", path, "--out", tmp_path / "r")
    assert code == 2
    assert message in error
    assert not (tmp_path / "r").exists()


def test_columns_of_numbers_are_one_kind_of_four():
    assert numbers("id").name == "numbers"
    assert images("id", "x").scaling == "none"
