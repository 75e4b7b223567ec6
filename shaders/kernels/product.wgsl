// Matrix product: y[r, c] = sum_t x[r, t] * w[c, t], in f32, whatever w is stored as. Each of x and w may lie with its rows on
// end or with its columns.
//
// A workgroup makes a tile of 64 rows by 64 columns, an invocation 4 by 4 of it; 16 terms of the sums at a time come into
// workgroup memory, laid out so that 4 rows, or 4 columns, of one term are one vector.
//
// Needs: shared/decode

struct Product {
    rows: u32,
    terms: u32,
    // Columns of y in this piece of w.
    columns: u32,
    dtype: u32,
    // Where the first element of x lies, and how far it is from one row to the next, and from one term.
    x_first: u32,
    x_row: u32,
    x_term: u32,
    // The same of w, whose rows are y's columns.
    w_row: u32,
    w_term: u32,
    // A row of y, and where the first column of this piece lies in it.
    out_stride: u32,
    out_first: u32,
    // 1: add the bias, whose first element for this piece is bias_first.
    biased: u32,
    bias_first: u32,
    // 1: add to what y holds.
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
    var stored: u32;
    if params.dtype > F16 {
        stored = weights[index];
    } else {
        stored = weights[index >> 1u] << (16u - (index & 1u) * 16u);
    }
    return stored & 0x80000000u;
}

fn weight(column: u32, term: u32) -> f32 {
    var value = 0.0;
    if column < params.columns && term < params.terms {
        let index = column * params.w_row + term * params.w_term;
        value = bitcast<f32>(magnitude_bits(index) | sign_bit(index));
    }
    return value;
}

fn input(row: u32, term: u32) -> f32 {
    var value = 0.0;
    if row < params.rows && term < params.terms {
        value = x[params.x_first + row * params.x_row + term * params.x_term];
    }
    return value;
}

fn store(row: u32, column: u32, value: f32) {
    if row >= params.rows || column >= params.columns {
        return;
    }
    var sum = value;
    if params.biased == 1u {
        sum += bias[params.bias_first + column];
    }
    sum *= params.scale;
    let index = row * params.out_stride + params.out_first + column;
    if params.add == 1u {
        sum += y[index];
    }
    y[index] = sum;
}

fn store_row(row: u32, column: u32, values: vec4<f32>) {
    store(row, column, values.x);
    store(row, column + 1u, values.y);
    store(row, column + 2u, values.z);
    store(row, column + 3u, values.w);
}

@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = id.xy + vec2<u32>(params.first_group_x, params.first_group_y);
    let along = lane % 16u;
    let down = lane / 16u;
    // What this invocation fetches: of one term, 4 rows and 4 columns.
    let fetch_row = group.y * 64u + down * 4u;
    let fetch_column = group.x * 64u + down * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first = 0u; first < params.terms; first += TERMS) {
        let term = first + along;
        x_tile[along * STRIDE + down] = vec4<f32>(
            input(fetch_row, term),
            input(fetch_row + 1u, term),
            input(fetch_row + 2u, term),
            input(fetch_row + 3u, term),
        );
        w_tile[along * STRIDE + down] = vec4<f32>(
            weight(fetch_column, term),
            weight(fetch_column + 1u, term),
            weight(fetch_column + 2u, term),
            weight(fetch_column + 3u, term),
        );
        workgroupBarrier();
        for (var k = 0u; k < TERMS; k += 1u) {
            let a = x_tile[k * STRIDE + down];
            let b = w_tile[k * STRIDE + along];
            sum0 += a.x * b;
            sum1 += a.y * b;
            sum2 += a.z * b;
            sum3 += a.w * b;
        }
        workgroupBarrier();
    }
    let row = group.y * 64u + down * 4u;
    let column = group.x * 64u + along * 4u;
    store_row(row, column, sum0);
    store_row(row + 1u, column, sum1);
    store_row(row + 2u, column, sum2);
    store_row(row + 3u, column, sum3);
}
