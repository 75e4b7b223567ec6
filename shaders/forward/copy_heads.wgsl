// A part of every head of every token from one place to another. A workgroup a head and token.

struct CopyHeads {
    features: u32,
    // Where the part begins, and how far apart tokens and heads are; heads that are 0 apart all get the same.
    from_first: u32,
    from_token_stride: u32,
    from_head_stride: u32,
    to_first: u32,
    to_token_stride: u32,
    to_head_stride: u32,
}

@group(0) @binding(0) var<uniform> params: CopyHeads;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const LANES: u32 = 64u;

@compute @workgroup_size(64)
fn copy_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = params.from_first + group.y * params.from_token_stride + group.x * params.from_head_stride;
    let goal = params.to_first + group.y * params.to_token_stride + group.x * params.to_head_stride;
    for (var i = lane; i < params.features; i += LANES) {
        y[goal + i] = x[start + i];
    }
}
