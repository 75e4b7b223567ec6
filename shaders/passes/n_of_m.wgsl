// Pass 5, N:M: of every M columns the N largest order keys stay.
//
// The keys come from group_key(row, column), which the including module has.
//
// Twin: src/passes/n_of_m.rs
// Needs: shared/params

// The mask of 32 columns, from word * 32 on: one bit a weight, 1 = pruned.
fn word_of_groups(row: u32, word: u32) -> u32 {
    let first = word * 32u;
    var bits = 0u;
    if params.m == 4u && first + 32u <= params.in_features {
        for (var column = 0u; column < 32u; column += 4u) {
            bits |= group_of_4(row, first + column) << column;
        }
    } else {
        for (var column = first; column < min(first + 32u, params.in_features); column += 1u) {
            bits |= select(0u, 1u, goes_from_group(row, column)) << (column - first);
        }
    }
    return bits;
}

// Whether a weight goes. M need not divide 32, so each weight counts for itself who in its group is ahead of it.
fn goes_from_group(row: u32, column: u32) -> bool {
    let key = group_key(row, column);
    let start = column - column % params.m;
    let end = min(start + params.m, params.in_features);
    var ahead = 0u;
    for (var other = start; other < end; other += 1u) {
        let other_key = group_key(row, other);
        if other_key > key || (other_key == key && other < column) {
            ahead += 1u;
        }
    }
    return (ahead >= params.n || key == 0u) && key != NON_FINITE;
}

// The group that 2:4 is made of. Every pair is compared once: either the right one is ahead, or the left.
fn group_of_4(row: u32, first: u32) -> u32 {
    let keys = vec4<u32>(
        group_key(row, first),
        group_key(row, first + 1u),
        group_key(row, first + 2u),
        group_key(row, first + 3u),
    );
    // Who of 1, 2, 3 is ahead of 0; of 2, 3, ahead of 1; whether 3 is ahead of 2.
    let of_0 = select(vec3<u32>(0u), vec3<u32>(1u), keys.yzw > keys.xxx);
    let of_1 = select(vec2<u32>(0u), vec2<u32>(1u), keys.zw > keys.yy);
    let of_2 = select(0u, 1u, keys.w > keys.z);
    let ahead = vec4<u32>(
        of_0.x + of_0.y + of_0.z,
        1u - of_0.x + of_1.x + of_1.y,
        2u - of_0.y - of_1.x + of_2,
        3u - of_0.z - of_1.y - of_2,
    );
    let goes = ((ahead >= vec4<u32>(params.n)) | (keys == vec4<u32>(0u))) & (keys != vec4<u32>(NON_FINITE));
    let bits = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), goes);
    return bits.x | bits.y | bits.z | bits.w;
}
