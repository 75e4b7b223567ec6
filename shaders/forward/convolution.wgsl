// Causal convolution of each channel for itself: y[t, c] = bias[c] + sum_b weight[c, width - 1 - b] * x[t - b, c], for successive
// tokens of one window; those before them that it looks back at are the tail.

struct Convolution {
    channels: u32,
    width: u32,
    biased: u32,
    // The first of the rows, and how many there are.
    row: u32,
    rows: u32,
    // Tokens before them that are in the tail, at most width - 1.
    before: u32,
}

@group(0) @binding(0) var<uniform> params: Convolution;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// The weights, channel by channel, and behind them the biases.
@group(0) @binding(2) var<storage, read> numbers: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> before: array<f32>;

// What came in at a token, counted from the first of the tail.
fn seen(token: u32, channel: u32) -> f32 {
    var value: f32;
    if token < params.before {
        value = before[token * params.channels + channel];
    } else {
        value = x[(params.row + token - params.before) * params.channels + channel];
    }
    return value;
}

@compute @workgroup_size(64)
fn convolution(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    if channel >= params.channels {
        return;
    }
    let token = params.before + id.y;
    var sum = 0.0;
    if params.biased == 1u {
        sum = numbers[params.channels * params.width + channel];
    }
    let reach = min(params.width, token + 1u);
    for (var back = 0u; back < reach; back += 1u) {
        let weight = numbers[channel * params.width + params.width - 1u - back];
        sum += weight * seen(token - back, channel);
    }
    y[(params.row + id.y) * params.channels + channel] = sum;
}

// The tail that the next tokens look back at, one of its rows a workgroup row: the end of the last one and of these tokens.
@compute @workgroup_size(64)
fn tail(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    if channel >= params.channels {
        return;
    }
    let all = params.before + params.rows;
    let kept = min(all, params.width - 1u);
    y[id.y * params.channels + channel] = seen(all - kept + id.y, channel);
}
