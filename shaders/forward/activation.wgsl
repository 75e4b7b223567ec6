// The nonlinearity of the feed-forward part, in place: gate = act(gate) * up, or x = act(x).

struct Activation {
    count: u32,
    // Which, by its number in src/model/activation.rs.
    activation: u32,
    // Values a row of the dispatch covers.
    row: u32,
    // The learned numbers of xIELU.
    above: f32,
    slope: f32,
    below: f32,
    edge: f32,
}

@group(0) @binding(0) var<uniform> params: Activation;
@group(0) @binding(1) var<storage, read_write> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;

const ACTIVATION_SILU: u32 = 0u;
const ACTIVATION_GELU: u32 = 1u;
const ACTIVATION_GELU_TANH: u32 = 2u;
const ACTIVATION_RELU: u32 = 3u;
const ACTIVATION_RELU_SQUARED: u32 = 4u;
const ACTIVATION_GELU_SIGMOID: u32 = 5u;
const ACTIVATION_SIGMOID: u32 = 6u;
const ACTIVATION_TANH: u32 = 7u;
const ACTIVATION_IDENTITY: u32 = 8u;
const ACTIVATION_LEAKY_RELU: u32 = 9u;
const ACTIVATION_MISH: u32 = 10u;
const ACTIVATION_RELU6: u32 = 11u;
const ACTIVATION_HARD_SWISH: u32 = 12u;
const ACTIVATION_XIELU: u32 = 13u;
const ACTIVATION_CLAMPED_SWIGLU: u32 = 64u;

// The error function, within 1.5e-7: Abramowitz and Stegun, 7.1.26.
fn erf(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - tail * exp(-a * a));
}

// Its own, as some back ends' tanh overflows.
fn tanh_of(x: f32) -> f32 {
    let e = exp(-2.0 * min(abs(x), 20.0));
    return sign(x) * (1.0 - e) / (1.0 + e);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

fn activated(x: f32) -> f32 {
    // Assigned, not returned: FXC may refuse a function that ends in a switch.
    var y: f32;
    switch params.activation {
        case ACTIVATION_SILU: {
            y = x / (1.0 + exp(min(-x, 80.0)));
        }
        case ACTIVATION_GELU: {
            y = 0.5 * x * (1.0 + erf(x * 0.70710678));
        }
        case ACTIVATION_RELU: {
            y = max(x, 0.0);
        }
        case ACTIVATION_RELU_SQUARED: {
            y = max(x, 0.0) * max(x, 0.0);
        }
        case ACTIVATION_GELU_SIGMOID: {
            y = x * sigmoid(1.702 * x);
        }
        case ACTIVATION_SIGMOID: {
            y = sigmoid(x);
        }
        case ACTIVATION_TANH: {
            y = tanh_of(x);
        }
        case ACTIVATION_IDENTITY: {
            y = x;
        }
        case ACTIVATION_LEAKY_RELU: {
            y = select(0.01 * x, x, x > 0.0);
        }
        case ACTIVATION_MISH: {
            // tanh(ln(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2); beyond 20 it is 1.
            let e = exp(min(x, 20.0));
            let n = e * (e + 2.0);
            y = x * (n / (n + 2.0));
        }
        case ACTIVATION_RELU6: {
            y = clamp(x, 0.0, 6.0);
        }
        case ACTIVATION_HARD_SWISH: {
            y = x * clamp(x + 3.0, 0.0, 6.0) / 6.0;
        }
        case ACTIVATION_XIELU: {
            let below = (exp(min(x, params.edge)) - 1.0 - x) * params.below;
            y = select(below, params.above * x * x, x > 0.0) + params.slope * x;
        }
        case ACTIVATION_GELU_TANH, default: {
            y = 0.5 * x * (1.0 + tanh_of(0.79788456 * (x + 0.044715 * x * x * x)));
        }
    }
    return y;
}

@compute @workgroup_size(256)
fn gated(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * params.row + id.x;
    if id.x < params.row && index < params.count {
        if params.activation == ACTIVATION_CLAMPED_SWIGLU {
            let x = min(gate[index], 7.0);
            gate[index] = x * sigmoid(1.702 * x) * (clamp(up[index], -7.0, 7.0) + 1.0);
        } else {
            gate[index] = activated(gate[index]) * up[index];
        }
    }
}

@compute @workgroup_size(256)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * params.row + id.x;
    if id.x < params.row && index < params.count {
        gate[index] = activated(gate[index]);
    }
}
