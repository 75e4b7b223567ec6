// Pass 5, N:M: of every M columns the N largest order keys stay. Twin: src/passes/n_of_m.rs.
//
// M need not divide 32, so each weight counts for itself who in its group is ahead of it. The keys come from
// order_key(row, column), which the including module has.

// The mask of 32 columns, from word * 32 on: one bit a weight, 1 = pruned.
fn word_of_groups(row: u32, word: u32) -> u32 {
    var bits = 0u;
    for (var bit = 0u; bit < 32u; bit += 1u) {
        let column = word * 32u + bit;
        if column >= params.in_features {
            break;
        }
        let key = order_key(row, column);
        let start = column - column % params.m;
        let end = min(start + params.m, params.in_features);
        var ahead = 0u;
        for (var other = start; other < end; other += 1u) {
            let other_key = order_key(row, other);
            if other_key > key || (other_key == key && other < column) {
                ahead += 1u;
            }
        }
        let goes = (ahead >= params.n || key == 0u) && key != NON_FINITE;
        bits |= select(0u, 1u, goes) << bit;
    }
    return bits;
}
