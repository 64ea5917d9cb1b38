"""The smallest merge that has everything: a base, two experts, five tensors."""

SHAPES = {
    "model.embed_tokens.weight": (16, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 8),
    "model.layers.0.input_layernorm.weight": (4,),
    "model.layers.1.mlp.down_proj.weight": (4, 8),
    "model.norm.weight": (4,),
}
MERGE = ("merge", "--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "-o", "out")
