// The second half of a sketch: sketch[j, k] = sum_t x[t, j] * p[t, k], with p = x Omega of one sequence.
//
// A workgroup makes a tile of 64 features by 64 columns, an invocation 4 by 4 of it; 16 tokens at a time come into workgroup
// memory, as they do in product.wgsl.

struct Sketch {
    tokens: u32,
    features: u32,
    rank: u32,
    // Where the site's sketch begins.
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Sketch;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<f32>;
@group(0) @binding(3) var<storage, read_write> sketch: array<f32>;

const TOKENS: u32 = 16u;
// One vector more than a tile has, so that lanes that write one below the other use different banks.
const STRIDE: u32 = 17u;

var<workgroup> x_tile: array<vec4<f32>, 272>;
var<workgroup> p_tile: array<vec4<f32>, 272>;

fn activation(token: u32, feature: u32) -> f32 {
    if token >= params.tokens || feature >= params.features {
        return 0.0;
    }
    return x[token * params.features + feature];
}

fn projection(token: u32, column: u32) -> f32 {
    if token >= params.tokens || column >= params.rank {
        return 0.0;
    }
    return p[token * params.rank + column];
}

fn store(feature: u32, column: u32, value: f32) {
    if feature < params.features && column < params.rank {
        sketch[params.first + feature * params.rank + column] = value;
    }
}

fn store_row(feature: u32, column: u32, values: vec4<f32>) {
    store(feature, column, values.x);
    store(feature, column + 1u, values.y);
    store(feature, column + 2u, values.z);
    store(feature, column + 3u, values.w);
}

@compute @workgroup_size(256)
fn sketch_of(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = lane % 16u;
    let row = lane / 16u;
    // What this invocation fetches: of one token, 4 features and 4 columns.
    let fetch_feature = group.y * 64u + column * 4u;
    let fetch_column = group.x * 64u + column * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first = 0u; first < params.tokens; first += TOKENS) {
        let token = first + row;
        x_tile[row * STRIDE + column] = vec4<f32>(
            activation(token, fetch_feature),
            activation(token, fetch_feature + 1u),
            activation(token, fetch_feature + 2u),
            activation(token, fetch_feature + 3u),
        );
        p_tile[row * STRIDE + column] = vec4<f32>(
            projection(token, fetch_column),
            projection(token, fetch_column + 1u),
            projection(token, fetch_column + 2u),
            projection(token, fetch_column + 3u),
        );
        workgroupBarrier();
        for (var k = 0u; k < TOKENS; k += 1u) {
            let a = x_tile[k * STRIDE + row];
            let b = p_tile[k * STRIDE + column];
            sum0 += a.x * b;
            sum1 += a.y * b;
            sum2 += a.z * b;
            sum3 += a.w * b;
        }
        workgroupBarrier();
    }
    let feature = group.y * 64u + row * 4u;
    let first_column = group.x * 64u + column * 4u;
    store_row(feature, first_column, sum0);
    store_row(feature + 1u, first_column, sum1);
    store_row(feature + 2u, first_column, sum2);
    store_row(feature + 3u, first_column, sum3);
}
