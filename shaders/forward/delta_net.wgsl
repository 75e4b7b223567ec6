// The recurrence of gated delta nets (arXiv 2412.06464): with dt = softplus(step + bias), w = 1 / (1 + exp(-b)), and q and k
// brought to length 1,
//
//   S = exp(decay dt) S;  S = S + k (w (v - S^T k))^T;  y = S^T q / sqrt(features of a key)
//
// for each value head and token. An invocation a feature of a value, which goes from token to token. A long sequence is several
// dispatches, which hand S on.
//
// Needs: shared/softplus, shared/four

struct DeltaNet {
    // The rows of this dispatch's tokens: from the first to the one before the end.
    first: u32,
    end: u32,
    // 1: the state is that of the tokens before.
    resumes: u32,
    // 1: it is needed for those after them.
    goes_on: u32,
    key_heads: u32,
    // Each key head serves some, one after the other.
    value_heads: u32,
    key_features: u32,
    value_features: u32,
    // What dt is kept within.
    least: f32,
    most: f32,
}

@group(0) @binding(0) var<uniform> params: DeltaNet;
// Of each token: q and k of every key head, v of every value head, the time step and b of every value head.
@group(0) @binding(1) var<storage, read> inputs: array<f32>;
// Decays and biases of all value heads.
@group(0) @binding(2) var<storage, read> numbers: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
// What S is between two dispatches: four rows of every column, then the next four.
@group(0) @binding(4) var<storage, read_write> state: array<vec4<f32>>;

// The most features of a key there is room for, by four.
const KEPT: u32 = 64u;

@compute @workgroup_size(64)
fn delta_net(@builtin(global_invocation_id) id: vec3<u32>) {
    let values = params.value_heads * params.value_features;
    if id.x >= values {
        return;
    }
    let head = id.x / params.value_features;
    let key_head = head / (params.value_heads / params.key_heads);
    let keys = params.key_heads * params.key_features;
    let stride = 2u * keys + values + 2u * params.value_heads;
    let features = min(params.key_features, 4u * KEPT);
    let scale = 1.0 / sqrt(f32(params.key_features));
    // This feature's column of the state.
    var kept: array<vec4<f32>, KEPT>;
    if params.resumes == 1u {
        for (var i = 0u; i < features; i += 4u) {
            kept[i / 4u] = state[i / 4u * values + id.x];
        }
    }
    for (var token = params.first; token < params.end; token += 1u) {
        let row = token * stride;
        let first_q = row + key_head * params.key_features;
        let first_k = first_q + keys;
        let steps = row + 2u * keys + values;
        let dt = clamp(softplus(inputs[steps + head] + numbers[params.value_heads + head]), params.least, params.most);
        let faded = exp(numbers[head] * dt);
        let write = 1.0 / (1.0 + exp(min(-inputs[steps + params.value_heads + head], 80.0)));
        var q_squares = 0.0;
        var k_squares = 0.0;
        var remembered = 0.0;
        for (var i = 0u; i < features; i += 4u) {
            let q = four_inputs(first_q + i, features - i);
            let k = four_inputs(first_k + i, features - i);
            q_squares += dot(q, q);
            k_squares += dot(k, k);
            kept[i / 4u] *= faded;
            remembered += dot(kept[i / 4u], k);
        }
        let of_q = scale / sqrt(q_squares + 1e-6);
        let of_k = 1.0 / sqrt(k_squares + 1e-6);
        let news = (inputs[row + 2u * keys + id.x] - remembered * of_k) * write;
        var sum = 0.0;
        for (var i = 0u; i < features; i += 4u) {
            kept[i / 4u] += four_inputs(first_k + i, features - i) * of_k * news;
            sum += dot(kept[i / 4u], four_inputs(first_q + i, features - i));
        }
        y[token * values + id.x] = sum * of_q;
    }
    if params.goes_on == 1u {
        for (var i = 0u; i < features; i += 4u) {
            state[i / 4u * values + id.x] = kept[i / 4u];
        }
    }
}
