// Matrix product: y[t, o] = sum_i x[t, i] * w[o, i], in f32, whatever w is stored as.
//
// A workgroup makes a tile of 64 tokens by 64 features, an invocation 4 by 4 of it; 16 terms of the sums at a time come
// into workgroup memory, laid out so that 4 tokens, or 4 features, of one term are one vector.
//
// Needs: shared/decode

struct Product {
    tokens: u32,
    in_features: u32,
    // Rows of w in this piece of the matrix.
    out_features: u32,
    dtype: u32,
    // A row of y, and where the first feature of this piece lies in it.
    out_stride: u32,
    out_first: u32,
    // 1: add the bias, whose first element for this piece is bias_first.
    biased: u32,
    bias_first: u32,
    // 1: add to what y holds, the residual.
    add: u32,
    // The first of the workgroups that are dispatched together.
    first_group_x: u32,
    first_group_y: u32,
    // What the product, with the bias, is multiplied by.
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Product;
// Binding 1, the weights, is in shaders/shared/decode.wgsl.
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const NON_FINITE: u32 = 0x7f800000u;
const TERMS: u32 = 16u;
// One vector more than a tile has, so that lanes that write one below the other use different banks.
const STRIDE: u32 = 17u;

var<workgroup> x_tile: array<vec4<f32>, 272>;
var<workgroup> w_tile: array<vec4<f32>, 272>;

fn sign_bit(index: u32) -> u32 {
    if params.dtype > F16 {
        return weights[index] & 0x80000000u;
    }
    return (weights[index >> 1u] << (16u - (index & 1u) * 16u)) & 0x80000000u;
}

fn weight(row: u32, term: u32) -> f32 {
    if row >= params.out_features || term >= params.in_features {
        return 0.0;
    }
    let index = row * params.in_features + term;
    return bitcast<f32>(magnitude_bits(index) | sign_bit(index));
}

fn input(token: u32, term: u32) -> f32 {
    if token >= params.tokens || term >= params.in_features {
        return 0.0;
    }
    return x[token * params.in_features + term];
}

fn store(token: u32, feature: u32, value: f32) {
    if token >= params.tokens || feature >= params.out_features {
        return;
    }
    var sum = value;
    if params.biased == 1u {
        sum += bias[params.bias_first + feature];
    }
    sum *= params.scale;
    let index = token * params.out_stride + params.out_first + feature;
    if params.add == 1u {
        sum += y[index];
    }
    y[index] = sum;
}

fn store_row(token: u32, feature: u32, values: vec4<f32>) {
    store(token, feature, values.x);
    store(token, feature + 1u, values.y);
    store(token, feature + 2u, values.z);
    store(token, feature + 3u, values.w);
}

@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.xy + vec2<u32>(params.first_group_x, params.first_group_y);
    let column = lane % 16u;
    let row = lane / 16u;
    // What this invocation fetches: of one term, 4 tokens and 4 features.
    let fetch_token = group.y * 64u + row * 4u;
    let fetch_feature = group.x * 64u + row * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first = 0u; first < params.in_features; first += TERMS) {
        let term = first + column;
        x_tile[column * STRIDE + row] = vec4<f32>(
            input(fetch_token, term),
            input(fetch_token + 1u, term),
            input(fetch_token + 2u, term),
            input(fetch_token + 3u, term),
        );
        w_tile[column * STRIDE + row] = vec4<f32>(
            weight(fetch_feature, term),
            weight(fetch_feature + 1u, term),
            weight(fetch_feature + 2u, term),
            weight(fetch_feature + 3u, term),
        );
        workgroupBarrier();
        for (var k = 0u; k < TERMS; k += 1u) {
            let a = x_tile[k * STRIDE + row];
            let b = w_tile[k * STRIDE + column];
            sum0 += a.x * b;
            sum1 += a.y * b;
            sum2 += a.z * b;
            sum3 += a.w * b;
        }
        workgroupBarrier();
    }
    let token = group.y * 64u + row * 4u;
    let feature = group.x * 64u + column * 4u;
    store_row(token, feature, sum0);
    store_row(token + 1u, feature, sum1);
    store_row(token + 2u, feature, sum2);
    store_row(token + 3u, feature, sum3);
}
