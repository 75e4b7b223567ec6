// From weights to the mask in one dispatch: the passes' own functions, joined where the passes alone store their keys.
//
// No key is stored. Each is computed again from the weight where it is needed: the row is in the device's cache by
// then, and a key takes a few operations, where one stored and read back takes 8 bytes of memory's bandwidth.

fn key(row: u32, column: u32) -> u32 {
    let key = order_key(row, column);
    if params.key_bits == 32u {
        return key;
    }
    return threshold_key(key, averages[row * params.blocks + (column >> params.block_shift)]);
}

// Row by row: EWMA if the keys are threshold keys, then the selection. A workgroup a row.
@compute @workgroup_size(256)
fn prune_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    if params.key_bits == 16u {
        var average = average_of_nothing();
        for (var first = 0u; first < params.blocks; first += BATCH) {
            batch_statistics(row, first, lane);
            if lane == 0u {
                for (var slot = 0u; slot < min(BATCH, params.blocks - first); slot += 1u) {
                    average = follow(average, statistics[slot]);
                    averages[row * params.blocks + first + slot] = average;
                }
            }
            workgroupBarrier();
        }
        storageBarrier();
    }
    if params.below != 0u {
        for (var word = lane; word < params.mask_words; word += 256u) {
            mask[row * params.mask_words + word] = word_below(row, word);
        }
    } else {
        prune_smallest_k(row, lane);
    }
}

// N:M: an invocation a word of the mask; workgroup y is the row.
@compute @workgroup_size(64)
fn prune_groups(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let word = group.x * 64u + lane;
    if word < params.mask_words {
        mask[group.y * params.mask_words + word] = word_of_groups(group.y, word);
    }
}
