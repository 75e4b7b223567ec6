// Causal convolution of each channel for itself: y[t, c] = bias[c] + sum_b weight[c, width - 1 - b] * x[t - b, c].

struct Convolution {
    channels: u32,
    width: u32,
    biased: u32,
}

@group(0) @binding(0) var<uniform> params: Convolution;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// The weights, channel by channel, and behind them the biases.
@group(0) @binding(2) var<storage, read> numbers: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn convolution(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    let token = id.y;
    if channel >= params.channels {
        return;
    }
    var sum = 0.0;
    if params.biased == 1u {
        sum = numbers[params.channels * params.width + channel];
    }
    let reach = min(params.width, token + 1u);
    for (var back = 0u; back < reach; back += 1u) {
        let weight = numbers[channel * params.width + params.width - 1u - back];
        sum += weight * x[(token - back) * params.channels + channel];
    }
    y[token * params.channels + channel] = sum;
}
