// What happens to the heads of queries or keys before attention, in place: RMSNorm of each head (Qwen 3), then the
// rotary embedding (arXiv 2104.09864), which turns feature i together with feature i + pairs. A workgroup a head and
// token; dispatched once for the queries and once for the keys.
//
// Needs: shared/reduce

struct Heads {
    head_dim: u32,
    // Pairs that turn; features behind 2 * pairs stay.
    pairs: u32,
    // Where the first head of the first token lies, and how far apart tokens and heads are.
    first: u32,
    token_stride: u32,
    head_stride: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Heads;
// Cosine and sine, per position, then per pair.
@group(0) @binding(1) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

const LANES: u32 = 64u;

fn start(group: vec3<u32>) -> u32 {
    return params.first + group.y * params.token_stride + group.x * params.head_stride;
}

@compute @workgroup_size(64)
fn normalise_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = start(group);
    var squares = 0.0;
    for (var i = lane; i < params.head_dim; i += LANES) {
        squares += x[first + i] * x[first + i];
    }
    let mean = sum_of_lanes(lane, squares) / f32(params.head_dim);
    let factor = 1.0 / sqrt(mean + params.epsilon);
    for (var i = lane; i < params.head_dim; i += LANES) {
        x[first + i] = x[first + i] * factor * weight[i];
    }
}

@compute @workgroup_size(64)
fn turn_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = start(group);
    for (var i = lane; i < params.pairs; i += LANES) {
        let turn = turns[group.y * params.pairs + i];
        let a = x[first + i];
        let b = x[first + params.pairs + i];
        x[first + i] = a * turn.x - b * turn.y;
        x[first + params.pairs + i] = b * turn.x + a * turn.y;
    }
}
