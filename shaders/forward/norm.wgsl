// RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450) of each token, y = x / rms(x) * weight and
// y = (x - mean(x)) / deviation(x) * weight + bias. A workgroup a token.
//
// Needs: shared/reduce

struct Norm {
    features: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Norm;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const LANES: u32 = 256u;

@compute @workgroup_size(256)
fn rms_norm(@builtin(workgroup_id) token: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = token.x * params.features;
    var squares = 0.0;
    for (var i = lane; i < params.features; i += LANES) {
        squares += x[first + i] * x[first + i];
    }
    let mean = sum_of_lanes(lane, squares) / f32(params.features);
    let factor = 1.0 / sqrt(mean + params.epsilon);
    for (var i = lane; i < params.features; i += LANES) {
        y[first + i] = x[first + i] * factor * weight[i];
    }
}

@compute @workgroup_size(256)
fn layer_norm(@builtin(workgroup_id) token: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = token.x * params.features;
    var sum = 0.0;
    for (var i = lane; i < params.features; i += LANES) {
        sum += x[first + i];
    }
    let mean = sum_of_lanes(lane, sum) / f32(params.features);
    var squares = 0.0;
    for (var i = lane; i < params.features; i += LANES) {
        let distance = x[first + i] - mean;
        squares += distance * distance;
    }
    let variance = sum_of_lanes(lane, squares) / f32(params.features);
    let factor = 1.0 / sqrt(variance + params.epsilon);
    for (var i = lane; i < params.features; i += LANES) {
        y[first + i] = (x[first + i] - mean) * factor * weight[i] + bias[i];
    }
}
