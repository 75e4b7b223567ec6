// The recurrence of state spaces, Mamba (arXiv 2312.00752) and Mamba 2 (arXiv 2405.21060): with dt = softplus(step + bias),
//
//   h[n] = exp(decay[n] dt) h[n] + dt B[n] x;  y = sum_n C[n] h[n] + skip x
//
// for each channel and token. An invocation a channel, which goes from token to token. A long window is several dispatches,
// which hand h on.
//
// Needs: shared/softplus, shared/four

struct StateSpace {
    // The rows of this dispatch's tokens: from the first to the one before the end.
    first: u32,
    end: u32,
    // 1: the state is that of the tokens before.
    resumes: u32,
    // 1: it is needed for those after them.
    goes_on: u32,
    heads: u32,
    // Channels of a head.
    features: u32,
    // B and C are there once for each group of heads.
    groups: u32,
    states: u32,
    // Decays of a head: one, or one a state.
    decays: u32,
    // What dt is kept within.
    least: f32,
    most: f32,
}

@group(0) @binding(0) var<uniform> params: StateSpace;
// Of each token: x of every channel, the time step of every head, B and C of every group.
@group(0) @binding(1) var<storage, read> inputs: array<f32>;
// Decays, biases and skips of all heads.
@group(0) @binding(2) var<storage, read> numbers: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
// What h is between two dispatches: four states of every channel, then the next four.
@group(0) @binding(4) var<storage, read_write> state: array<vec4<f32>>;

// The most states there is room for, by four.
const KEPT: u32 = 64u;

// The decays of four states, of which `left` are there.
fn four_decays(first: u32, left: u32) -> vec4<f32> {
    return first_of(vec4<f32>(numbers[first], numbers[first + 1u], numbers[first + 2u], numbers[first + 3u]), left);
}

@compute @workgroup_size(64)
fn state_space(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    let channels = params.heads * params.features;
    if channel >= channels {
        return;
    }
    let head = channel / params.features;
    let group = head / (params.heads / params.groups);
    let both = params.groups * params.states;
    let stride = channels + params.heads + 2u * both;
    let bias = numbers[params.heads * params.decays + head];
    let skip = numbers[params.heads * params.decays + params.heads + head];
    let states = min(params.states, 4u * KEPT);
    var kept: array<vec4<f32>, KEPT>;
    if params.resumes == 1u {
        for (var n = 0u; n < states; n += 4u) {
            kept[n / 4u] = state[n / 4u * channels + channel];
        }
    }
    for (var token = params.first; token < params.end; token += 1u) {
        let row = token * stride;
        let x = inputs[row + channel];
        let dt = clamp(softplus(inputs[row + channels + head] + bias), params.least, params.most);
        let first_b = row + channels + params.heads + group * params.states;
        var faded = vec4<f32>(exp(numbers[head * params.decays] * dt));
        var sum = 0.0;
        for (var n = 0u; n < states; n += 4u) {
            let b = four_inputs(first_b + n, states - n);
            let c = four_inputs(first_b + both + n, states - n);
            if params.decays > 1u {
                faded = exp(four_decays(head * params.decays + n, states - n) * dt);
            }
            let h = kept[n / 4u] * faded + dt * x * b;
            kept[n / 4u] = h;
            sum += dot(h, c);
        }
        y[token * channels + channel] = sum + skip * x;
    }
    if params.goes_on == 1u {
        for (var n = 0u; n < states; n += 4u) {
            state[n / 4u * channels + channel] = kept[n / 4u];
        }
    }
}
