// From a row's weights to its mask in one dispatch: the fused passes.
//
// A row whose scores lie within the span, which is nearly every row there is, is read once and kept as logarithms
// (row_logs). Any other is pruned by keys: each is computed again from the weight where it is needed, as the row is in the
// device's cache by then, and a key takes a few operations, where one stored and read back takes 8 bytes of bandwidth.
//
// FXC, Microsoft's older compiler, allows a barrier only where it can prove that all invocations come to it. For it, loops over
// a row have as many rounds for each invocation, with a condition inside, and the average over a row's logarithms goes through
// the blocks in a loop of all invocations (docs/windows.md).
//
// Twin: src/passes/fused.rs
// Needs: passes/score, passes/ewma, passes/select, passes/row_logs/score, passes/row_logs/select, passes/row_logs/ewma

fn key(row: u32, column: u32) -> u32 {
    var key = order_key(row, column);
    if params.key_bits != 32u {
        key = threshold_key(key, averages[row * params.blocks + (column >> params.block_shift)]);
    }
    return key;
}

// For 256 invocations.
fn prune_by_keys(row: u32, lane: u32) {
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
        for (var start = 0u; start < params.mask_words; start += 256u) {
            let word = start + lane;
            if word < params.mask_words {
                mask[row * params.mask_words + word] = word_below(row, word);
            }
        }
    } else {
        prune_smallest_k(row, lane);
    }
}

// Prunes a row whose logarithms are stored. For 256 invocations.
fn prune_by_logs(row: u32, kind: u32, lane: u32) {
    atomicStore(&histogram[lane], 0u);
    workgroupBarrier();
    if params.key_bits == 16u {
        measure(kind, lane);
        normalise_logs(kind, lane);
    } else {
        for (var start = 0u; start < params.mask_words * 4u; start += 256u) {
            let eight = start + lane;
            if eight < params.mask_words * 4u {
                count_upper_bytes(logs[eight]);
            }
        }
    }
    workgroupBarrier();
    if params.below != 0u {
        write_mask(row, Cut(params.below - 1u, 0u, EVERY), lane);
    } else {
        write_mask(row, find_cut(row, lane), lane);
    }
}

// Prunes a row. For 256 invocations.
fn prune_row(row: u32, lane: u32) {
    // The host gives no span where a row of logarithms does not fit.
    if params.span_base != 0u {
        let kind = store_logs(row, lane);
        if kind != ODD {
            prune_by_logs(row, kind, lane);
            return;
        }
    }
    prune_by_keys(row, lane);
}
