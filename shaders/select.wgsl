// Pass 4, select: the mask of every row. Twin: src/passes/select.rs.
//
// `prune_smallest_k`, a workgroup a row: a radix select from the top, 8 bits a round, finds the k-th smallest key; then
// the mask is written word by word, ties counted in column order. `word_below`: the open loop. The keys come from
// key(row, column), which the including module has.

// One bit a weight, 1 = pruned; params.mask_words words a row, the bits past the last column 0.
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> scan: array<u32, 256>;
var<workgroup> found_bin: u32;
var<workgroup> found_below: u32;

// The key of a weight that is zero is 0 in either width; that of a non-finite one is the largest.
fn largest_key() -> u32 {
    return select(65535u, NON_FINITE, params.key_bits == 32u);
}

// For 256 invocations.
fn prune_smallest_k(row: u32, lane: u32) {
    // Keys that share the bits above `shift` with the threshold are candidates; `below` counts those already smaller.
    var prefix = 0u;
    var below = 0u;
    var shift = params.key_bits;
    while shift > 0u {
        shift -= 8u;
        atomicStore(&histogram[lane], 0u);
        workgroupBarrier();
        for (var column = lane; column < params.in_features; column += 256u) {
            let shifted = key(row, column) >> shift;
            // Shifting twice, because a shift by 32 is not defined.
            if (shifted >> 8u) == prefix {
                atomicAdd(&histogram[shifted & 255u], 1u);
            }
        }
        workgroupBarrier();
        if lane == 0u {
            var bin = 0u;
            var smaller = below;
            loop {
                let count = atomicLoad(&histogram[bin]);
                if bin == 255u || smaller + count >= params.k {
                    break;
                }
                smaller += count;
                bin += 1u;
            }
            found_bin = bin;
            found_below = smaller;
        }
        workgroupBarrier();
        prefix = (prefix << 8u) | found_bin;
        below = found_below;
        workgroupBarrier();
    }
    let threshold = prefix;
    // Of the keys equal to the threshold, how many go: all zeros, no non-finite weight.
    var ties = params.k - min(below, params.k);
    if threshold == 0u {
        ties = params.in_features;
    } else if threshold >= largest_key() {
        ties = 0u;
    }

    var ties_before = 0u;
    for (var first = 0u; first < params.mask_words; first += 256u) {
        let word = first + lane;
        var smaller_bits = 0u;
        var equal_bits = 0u;
        for (var bit = 0u; bit < 32u; bit += 1u) {
            let column = word * 32u + bit;
            if column < params.in_features {
                let own = key(row, column);
                smaller_bits |= select(0u, 1u, own < threshold) << bit;
                equal_bits |= select(0u, 1u, own == threshold) << bit;
            }
        }
        // Inclusive prefix sum of the ties over the workgroup's 256 words.
        scan[lane] = countOneBits(equal_bits);
        workgroupBarrier();
        for (var step = 1u; step < 256u; step <<= 1u) {
            var left = 0u;
            if lane >= step {
                left = scan[lane - step];
            }
            workgroupBarrier();
            scan[lane] += left;
            workgroupBarrier();
        }
        let before = ties_before + scan[lane] - countOneBits(equal_bits);
        ties_before += scan[255];
        workgroupBarrier();
        // The lowest of this word's ties, as many as are left.
        var left = ties - min(before, ties);
        var bits = smaller_bits;
        for (var bit = 0u; bit < 32u; bit += 1u) {
            let tie = (equal_bits >> bit) & 1u;
            let goes = min(tie, left);
            bits |= goes << bit;
            left -= goes;
        }
        if word < params.mask_words {
            mask[row * params.mask_words + word] = bits;
        }
    }
}

// The mask of 32 columns, from word * 32 on, by params.below.
fn word_below(row: u32, word: u32) -> u32 {
    var bits = 0u;
    for (var bit = 0u; bit < 32u; bit += 1u) {
        let column = word * 32u + bit;
        if column < params.in_features {
            bits |= select(0u, 1u, key(row, column) < params.below) << bit;
        }
    }
    return bits;
}
