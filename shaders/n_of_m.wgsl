// Pass 5, N:M: of every M columns the N largest order keys stay. Twin: src/passes/n_of_m.rs.
//
// One invocation a mask word. M need not divide 32, so each weight counts for itself who in its group is ahead of it.

@group(0) @binding(1) var<storage, read> keys: array<u32>;
// One bit a weight, 1 = pruned; params.mask_words words a row, the bits past the last column 0.
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;

@compute @workgroup_size(64)
fn n_of_m(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let word = group.x * 64u + lane;
    if word >= params.mask_words {
        return;
    }
    let base = row * params.in_features;
    var bits = 0u;
    for (var bit = 0u; bit < 32u; bit += 1u) {
        let column = word * 32u + bit;
        if column >= params.in_features {
            break;
        }
        let key = keys[base + column];
        let start = column - column % params.m;
        let end = min(start + params.m, params.in_features);
        var ahead = 0u;
        for (var other = start; other < end; other += 1u) {
            let other_key = keys[base + other];
            if other_key > key || (other_key == key && other < column) {
                ahead += 1u;
            }
        }
        let goes = (ahead >= params.n || key == 0u) && key != NON_FINITE;
        bits |= select(0u, 1u, goes) << bit;
    }
    mask[row * params.mask_words + word] = bits;
}
