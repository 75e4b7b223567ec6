// What happens to the heads of queries or keys around attention, in place: a norm (RMSNorm, or LayerNorm with a weight)
// of each head or of all of them together, and the rotary embedding (arXiv 2104.09864), which rotates feature i together
// with feature i + pairs, or 2 i with 2 i + 1. A workgroup a head and token; dispatched once for the queries and once for
// the keys.
//
// Needs: shared/reduce

struct Heads {
    // Features that are normalised together.
    head_dim: u32,
    // Pairs that are rotated; features behind 2 * pairs stay.
    pairs: u32,
    // 1: adjacent features are a pair.
    interleaved: u32,
    // Where the first head of the first token lies, and how far apart tokens and heads are.
    first: u32,
    token_stride: u32,
    head_stride: u32,
    // 1: LayerNorm.
    centred: u32,
    // From the factors of a head to those of the next; 0 where they have the same.
    weight_stride: u32,
    epsilon: f32,
    // Where the first of the tokens stands in its window.
    position: u32,
}

@group(0) @binding(0) var<uniform> params: Heads;
// Cosine and sine, per position, then per pair.
@group(0) @binding(1) var<storage, read> rotations: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

const LANES: u32 = 64u;

fn start(group: vec3<u32>) -> u32 {
    return params.first + group.y * params.token_stride + group.x * params.head_stride;
}

@compute @workgroup_size(64)
fn normalise_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = start(group);
    var sum = 0.0;
    if params.centred == 1u {
        for (var i = lane; i < params.head_dim; i += LANES) {
            sum += x[first + i];
        }
    }
    let centre = sum_of_lanes(lane, sum) / f32(params.head_dim);
    var squares = 0.0;
    for (var i = lane; i < params.head_dim; i += LANES) {
        let distance = x[first + i] - centre;
        squares += distance * distance;
    }
    let mean = sum_of_lanes(lane, squares) / f32(params.head_dim);
    let factor = 1.0 / sqrt(mean + params.epsilon);
    let own = group.x * params.weight_stride;
    for (var i = lane; i < params.head_dim; i += LANES) {
        var summand = 0.0;
        if params.centred == 1u {
            summand = bias[own + i];
        }
        x[first + i] = (x[first + i] - centre) * factor * weight[own + i] + summand;
    }
}

@compute @workgroup_size(64)
fn apply_rope(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = start(group);
    for (var i = lane; i < params.pairs; i += LANES) {
        let rotation = rotations[(params.position + group.y) * params.pairs + i];
        let at = first + select(i, 2u * i, params.interleaved == 1u);
        let other = at + select(params.pairs, 1u, params.interleaved == 1u);
        let a = x[at];
        let b = x[other];
        x[at] = a * rotation.x - b * rotation.y;
        x[other] = b * rotation.x + a * rotation.y;
    }
}
