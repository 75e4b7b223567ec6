// Pass 4, select: the mask of every row.
//
// `prune_smallest_k`, a workgroup a row: a radix select from the top, 8 bits a round, finds the k-th smallest key; then
// the mask is written word by word, ties counted in column order. `word_below`: the open loop. The keys come from
// key(row, column), which the including module has.
//
// Twin: src/passes/select.rs
// Needs: shared/params

// One bit a weight, 1 = pruned; params.mask_words words a row, the bits past the last column 0.
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;

// Of a round's 256 bins how many keys; at the end, of 256 words how many ties.
var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> sums_of_16: array<u32, 16>;
var<workgroup> kth_bin: Bin;

// A bin of the histogram, how many keys lie before it, how many in it.
struct Bin {
    index: u32,
    below: u32,
    count: u32,
    // Some drivers lay variables out as closely as they can: 16 bytes leave a neighbour of vectors aligned.
    padding: u32,
}

// The key of a weight that is zero is 0 in either width; that of a non-finite one is the largest.
fn largest_key() -> u32 {
    return select(65535u, NON_FINITE, params.key_bits == 32u);
}

// The histogram's bin that the k-th smallest lies in, `below` being smaller than all of its keys; the histogram is
// empty again. For 256 invocations.
fn find_bin(below: u32, lane: u32) -> Bin {
    workgroupBarrier();
    let first = lane * 16u;
    sum_16s(lane);
    if lane < 16u {
        var smaller = below;
        for (var other = 0u; other < lane; other += 1u) {
            smaller += sums_of_16[other];
        }
        let is_reached = lane == 15u || smaller + sums_of_16[lane] >= params.k;
        if is_reached && (lane == 0u || smaller < params.k) {
            var bin = first;
            var is_before = true;
            for (var step = 0u; step < 15u; step += 1u) {
                let count = atomicLoad(&histogram[first + step]);
                is_before = is_before && smaller + count < params.k;
                smaller += select(0u, count, is_before);
                bin += select(0u, 1u, is_before);
            }
            kth_bin = Bin(bin, smaller, atomicLoad(&histogram[bin]), 0u);
        }
    }
    // A load that every compiler knows to be the same for all invocations: barriers may depend on it.
    let bin = workgroupUniformLoad(&kth_bin);
    atomicStore(&histogram[lane], 0u);
    workgroupBarrier();
    return bin;
}

// Adds up the histogram by 16. For 256 invocations.
fn sum_16s(lane: u32) {
    if lane < 16u {
        var sum = 0u;
        for (var i = 0u; i < 16u; i += 1u) {
            sum += atomicLoad(&histogram[lane * 16u + i]);
        }
        sums_of_16[lane] = sum;
    }
    workgroupBarrier();
}

// For 256 invocations.
fn prune_smallest_k(row: u32, lane: u32) {
    // Keys that share the bits above `shift` with the threshold are candidates; `below` counts those already smaller.
    var prefix = 0u;
    var below = 0u;
    var shift = params.key_bits;
    atomicStore(&histogram[lane], 0u);
    workgroupBarrier();
    while shift > 0u {
        shift -= 8u;
        for (var start = 0u; start < params.in_features; start += 256u) {
            let column = start + lane;
            if column < params.in_features {
                let shifted = key(row, column) >> shift;
                // Shifting twice, because a shift by 32 is not defined.
                if (shifted >> 8u) == prefix {
                    atomicAdd(&histogram[shifted & 255u], 1u);
                }
            }
        }
        let bin = find_bin(below, lane);
        prefix = (prefix << 8u) | bin.index;
        below = bin.below;
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
        for (var column = word * 32u; column < min(word * 32u + 32u, params.in_features); column += 1u) {
            let own = key(row, column);
            smaller_bits |= select(0u, 1u, own < threshold) << (column % 32u);
            equal_bits |= select(0u, 1u, own == threshold) << (column % 32u);
        }
        let bits = smaller_bits | first_ties(equal_bits, ties - min(ties_before, ties), lane);
        ties_before += ties_of_all();
        if word < params.mask_words {
            mask[row * params.mask_words + word] = bits;
        }
        workgroupBarrier();
    }
}

// Of the ties in 256 words, an invocation's each, the first `ties`: those in this invocation's word. For 256 invocations.
fn first_ties(equal_bits: u32, ties: u32, lane: u32) -> u32 {
    atomicStore(&histogram[lane], countOneBits(equal_bits));
    workgroupBarrier();
    sum_16s(lane);
    var bits = 0u;
    if equal_bits != 0u {
        var before = 0u;
        for (var other = 0u; other < lane / 16u; other += 1u) {
            before += sums_of_16[other];
        }
        for (var other = lane & ~15u; other < lane; other += 1u) {
            before += atomicLoad(&histogram[other]);
        }
        var rest = equal_bits;
        for (var left = ties - min(before, ties); left > 0u && rest != 0u; left -= 1u) {
            let lowest = rest & (~rest + 1u);
            bits |= lowest;
            rest ^= lowest;
        }
    }
    return bits;
}

// After first_ties: how many ties the 256 words have.
fn ties_of_all() -> u32 {
    var sum = 0u;
    for (var other = 0u; other < 16u; other += 1u) {
        sum += sums_of_16[other];
    }
    return sum;
}

// The mask of 32 columns, from word * 32 on, by params.below.
fn word_below(row: u32, word: u32) -> u32 {
    var bits = 0u;
    for (var column = word * 32u; column < min(word * 32u + 32u, params.in_features); column += 1u) {
        bits |= select(0u, 1u, key(row, column) < params.below) << (column % 32u);
    }
    return bits;
}
