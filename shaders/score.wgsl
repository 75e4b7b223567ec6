// Pass 2, score: the order key of a weight. Twin: src/passes/score.rs.

// Column factors f_j, then column terms c_j, then row terms r_i; the terms only when params.row_scored is 1.
@group(0) @binding(2) var<storage, read> factors: array<f32>;

// The bits go through an integer select between two float operations, so that no compiler reorders or fuses them,
// and a result that a device may flush is zero everywhere.
fn flush(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    return bitcast<f32>(select(bits, 0u, bits < SMALLEST_LIVE));
}

fn order_key(row: u32, column: u32) -> u32 {
    var factor = factors[column];
    if params.row_scored != 0u {
        let column_term = factors[params.in_features + column];
        let row_term = factors[2u * params.in_features + row];
        factor = flush(flush(row_term + column_term) * factor);
    }
    let magnitude = magnitude_bits(row * params.in_features + column);
    let score_bits = bitcast<u32>(bitcast<f32>(magnitude) * factor);
    var key = score_bits;
    if score_bits < SMALLEST_LIVE {
        key = select(1u, 0u, magnitude == 0u);
    }
    if magnitude >= NON_FINITE {
        key = NON_FINITE;
    }
    return key;
}
