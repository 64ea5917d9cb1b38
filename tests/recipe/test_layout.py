from rlmerge.recipe import ModelRef, Module, Slice, SliceSource

A, B = ModelRef("a"), ModelRef("b")


def test_the_length_is_that_of_the_ranges():
    assert Slice((SliceSource(A, (2, 6)), SliceSource(B, (4, 8)))).length == 4
    assert Slice((), B, (3, 5)).length == 2
    assert Slice((SliceSource(A),), B).length is None


def test_a_module_is_whole_where_it_has_one_slice_without_ranges():
    assert Module(None, (Slice((SliceSource(A),), B),)).is_whole
    assert not Module(None, (Slice((SliceSource(A, (0, 2)),)),)).is_whole
    assert not Module(None, (Slice((SliceSource(A),)), Slice((SliceSource(B),)))).is_whole


def test_models_are_base_then_experts():
    assert Slice((SliceSource(A), SliceSource(B)), B).models == (B, A, B)
    assert Slice((SliceSource(A),)).models == (A,)


def test_map_models_reaches_everything():
    module = Module("m", (Slice((SliceSource(A, (0, 2)),), B, (0, 2)), Slice((SliceSource(B, (0, 1)),))))
    pinned = module.map_models(lambda model: ModelRef(model.reference, "c"))
    assert [model.revision for part in pinned.slices for model in part.models] == ["c"] * 3
    assert (pinned.slices[0].sources[0].layer_range, pinned.slices[0].base_range) == ((0, 2), (0, 2))


def test_lines_are_no_part_of_identity():
    assert SliceSource(A, line=3) == SliceSource(A, line=7)
    assert Module("m", (), line=1) == Module("m", (), line=2)
