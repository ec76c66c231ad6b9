"""Files of tokens and the documents in them, against what plain Python makes of the same ids."""

import random
import struct

import pytest

from moec.runtime.data import DataFault, Documents, SampleFault, Wanted, open_data
from moec.runtime.job import Input, Job

LENGTH, VOCAB, SEPARATOR, PADDING = 6, 1000, 7, 9


def job(vocab=VOCAB):
    inputs = tuple([Input(kind, kind, (LENGTH,), vocab) for kind in ("tokens", "labels")])
    return Job("tiny", 1, 4, 1, None, inputs, "sum", None)


def write(path, ids, width="H"):
    path.write_bytes(struct.pack(f"<{len(ids)}{width}", *ids))


def samples(path, documents=None):
    """Of one epoch, in order of their first ids and so on, as pairs of lists."""
    data = open_data(job(), Wanted(str(path), documents or Documents()), 3).training
    found = [data.sample(n) for n in range(len(data.items))]
    return sorted((sample["tokens"].tolist(), sample["labels"].tolist()) for sample in found)


def drawn(count):
    rng = random.Random(0)
    return [rng.randrange(10, VOCAB) for _ in range(count)]


def test_files_are_one_stream_in_order_of_name(tmp_path):
    ids = drawn(100)
    write(tmp_path / "b.u32", ids[30:31], "I")
    write(tmp_path / "a.u16", ids[:30])
    write(tmp_path / "c.bin", ids[31:90])
    write(tmp_path / "d.u16", [])
    write(tmp_path / "e.u32", ids[90:], "I")
    (tmp_path / ".hidden").write_text("no tokens")
    expected = sorted((ids[n : n + LENGTH], ids[n + 1 : n + LENGTH + 1]) for n in range(0, 96, LENGTH))
    assert samples(tmp_path) == expected and len(expected) == 16
    write(tmp_path / "all.u16", ids)
    assert samples(tmp_path / "all.u16") == expected


def test_the_end_of_a_name_may_be_in_capitals(tmp_path):
    ids = drawn(100)
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "A.U16", ids[:50])
    write(tmp_path / "one" / "B.u16", ids[50:])
    write(tmp_path / "ALL.BIN", ids)
    write(tmp_path / "ALL.U32", ids, "I")
    expected = sorted((ids[n : n + LENGTH], ids[n + 1 : n + LENGTH + 1]) for n in range(0, 96, LENGTH))
    assert samples(tmp_path / "one") == samples(tmp_path / "ALL.BIN") == samples(tmp_path / "ALL.U32") == expected


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    for name, size, width in (("a.u16", 31, 2), ("b.u32", 30, 4), ("c.bin", 1, 2)):
        (tmp_path / name).write_bytes(bytes(size))
        with pytest.raises(DataFault) as caught:
            samples(tmp_path / name)
        kind = {2: "uint16", 4: "uint32"}[width]
        assert str(caught.value) == (
            f"{tmp_path / name} has {size} bytes, which is no whole number of ids of {width} bytes: it is cut off, "
            f"or not a .{name.partition('.')[2]} file of {kind}"
        )


def test_text_beside_tokens_is_refused(tmp_path):
    write(tmp_path / "a.u16", drawn(50))
    (tmp_path / "README").write_text("about the tokens")
    with pytest.raises(DataFault) as caught:
        samples(tmp_path)
    assert str(caught.value) == (
        f"--data {tmp_path} has files of tokens, as a.u16, and others, as README: put one kind into a folder of its own"
    )


def test_an_id_outside_the_vocabulary_is_refused_where_it_is_read(tmp_path):
    ids = drawn(100)
    ids[77] = VOCAB
    write(tmp_path / "a.u16", ids[:40])
    write(tmp_path / "b.u16", ids[40:])
    data = open_data(job(), Wanted(str(tmp_path)), 0).training
    refused = []
    for n in range(len(data.items)):
        try:
            data.sample(n)
        except SampleFault as fault:
            refused.append(str(fault))
    assert refused == [
        f"{tmp_path / 'b.u16'}: token 1000 at position 37 is not in the vocabulary of 1000: "
        "read tokens that were made for it, or give the plan a larger vocab"
    ]


def test_too_few_tokens(tmp_path):
    write(tmp_path / "a.u16", drawn(LENGTH))
    with pytest.raises(DataFault, match="the data has 6 ids, and one sample takes 7"):
        samples(tmp_path)
    write(tmp_path / "a.u16", [])
    with pytest.raises(DataFault, match="the data has 0 ids, and one sample takes 7"):
        samples(tmp_path)


def in_documents(seed):
    """Ids with documents of all lengths in them, empty ones too, and filler after some."""
    rng = random.Random(seed)
    ids = []
    for _ in range(30):
        ids += [rng.randrange(10, VOCAB) for _ in range(rng.choice([0, 1, 2, 5, 6, 7, 12, 13, 20]))] + [SEPARATOR]
        ids += [PADDING] * rng.choice([0, 0, 3])
    return ids + [rng.randrange(10, VOCAB) for _ in range(rng.choice([0, 1, 8]))]


@pytest.mark.parametrize("seed", range(5))
def test_labels_across_documents_and_of_filler_are_ignored(tmp_path, seed):
    ids = in_documents(seed)
    write(tmp_path / "a.u16", ids)
    expected = []
    for start in range(0, len(ids) - LENGTH, LENGTH):
        pairs = [(ids[n], ids[n + 1]) for n in range(start, start + LENGTH)]
        labels = [-100 if a == SEPARATOR or PADDING in (a, b) else b for a, b in pairs]
        expected.append(([a for a, _ in pairs], labels))
    assert samples(tmp_path, Documents(SEPARATOR, PADDING)) == sorted(expected)


@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize("seed", range(5))
def test_documents_apart(tmp_path, seed, padding):
    ids = [id for id in in_documents(seed) if id != PADDING]
    write(tmp_path / "a.u16", ids)
    documents = [[]]
    for id in ids:
        documents[-1].append(id)
        if id == SEPARATOR:
            documents.append([])
    expected = []
    for document in documents:
        for start in range(0, len(document) - 1, LENGTH):
            piece = document[start : start + LENGTH + 1]
            tokens, labels = piece[:-1], piece[1:]
            missing = LENGTH - len(tokens)
            filler = SEPARATOR if padding is None else padding
            expected.append((tokens + [filler] * missing, labels + [-100] * missing))
    assert samples(tmp_path, Documents(SEPARATOR, padding, apart=True)) == sorted(expected)


def test_options_that_do_not_fit(tmp_path):
    write(tmp_path / "a.u16", drawn(50))
    for documents, message in {
        Documents(1000): "--separator 1000: the vocabulary has ids from 0 to 999",
        Documents(3, -1): "--padding -1: the vocabulary has ids from 0 to 999",
        Documents(apart=True): "--documents apart: say with --separator ID which token ends a document",
    }.items():
        with pytest.raises(DataFault) as caught:
            samples(tmp_path, documents)
        assert str(caught.value) == message
    write(tmp_path / "a.u16", [SEPARATOR] * 50)
    with pytest.raises(DataFault, match="the data has no document of two ids, and one sample takes 7"):
        samples(tmp_path, Documents(SEPARATOR, apart=True))


def test_the_fingerprint_is_of_the_content(tmp_path):
    ids = [n % VOCAB for n in range(100_000)]
    said = []
    for place in (None, 0, 99_999):
        changed = [id + 1 if n == place else id for n, id in enumerate(ids)]
        write(tmp_path / "a.u16", changed)
        said.append(open_data(job(2 * VOCAB), Wanted(str(tmp_path)), 0).training.fingerprint)
    assert len(set(said)) == 3 and said[0].startswith("tokens 100000 ")
