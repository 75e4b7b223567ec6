// Pass 2, score: order key of every weight. Twin: src/passes/score.rs.
//
// One invocation a weight; workgroup y is the row.

// Column factors f_j, then column terms c_j, then row terms r_i; the terms only when params.row_scored is 1.
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;

// The bits go through an integer select between two float operations, so that no compiler reorders or fuses them,
// and a result that a device may flush is zero everywhere.
fn flush(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    return bitcast<f32>(select(bits, 0u, bits < SMALLEST_LIVE));
}

@compute @workgroup_size(256)
fn score(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let column = group.x * 256u + lane;
    if column >= params.in_features {
        return;
    }
    var factor = factors[column];
    if params.row_scored != 0u {
        let column_term = factors[params.in_features + column];
        let row_term = factors[2u * params.in_features + row];
        factor = flush(flush(row_term + column_term) * factor);
    }
    let index = row * params.in_features + column;
    let magnitude = magnitude_bits(index);
    let score_bits = bitcast<u32>(bitcast<f32>(magnitude) * factor);
    var key = score_bits;
    if score_bits < SMALLEST_LIVE {
        key = select(1u, 0u, magnitude == 0u);
    }
    if magnitude >= NON_FINITE {
        key = NON_FINITE;
    }
    keys[index] = key;
}
