// The selection over a row's logarithms, or the threshold keys that they have become.
//
// Twin: src/passes/row_logs/select.rs, which cuts by bounds on logarithms alone: src/passes/row_logs/mod.rs
// Needs: passes/select, passes/row_logs/score

// Adds the upper bytes of eight packed keys to the histogram.
fn count_upper_bytes(packed: vec4<u32>) {
    let even = (packed >> vec4<u32>(8u)) & vec4<u32>(255u);
    let odd = packed >> vec4<u32>(24u);
    atomicAdd(&histogram[even.x], 1u);
    atomicAdd(&histogram[even.y], 1u);
    atomicAdd(&histogram[even.z], 1u);
    atomicAdd(&histogram[even.w], 1u);
    atomicAdd(&histogram[odd.x], 1u);
    atomicAdd(&histogram[odd.y], 1u);
    atomicAdd(&histogram[odd.z], 1u);
    atomicAdd(&histogram[odd.w], 1u);
}

// Adds the lower bytes of two packed keys to the histogram, where the upper byte is this one.
fn count_lower_bytes(packed: u32, upper: u32) {
    if ((packed >> 8u) & 255u) == upper {
        atomicAdd(&histogram[packed & 255u], 1u);
    }
    if (packed >> 24u) == upper {
        atomicAdd(&histogram[(packed >> 16u) & 255u], 1u);
    }
}

// What a row is cut by.
struct Cut {
    // All below go.
    threshold: u32,
    // Of those equal to the threshold, by the 13 bits of the order key below the logarithm's: all below go.
    low_bits: u32,
    // Of those equal to both, the first so many; all: EVERY.
    ties: u32,
}

const EVERY: u32 = 0xffffffffu;

// The cut of the k smallest, once the histogram has the upper bytes. For 256 invocations.
fn find_cut(row: u32, lane: u32) -> Cut {
    let upper = find_bin(0u, lane);
    for (var start = 0u; start < params.mask_words * 4u; start += 256u) {
        let eight = start + lane;
        if eight < params.mask_words * 4u {
            let packed = logs[eight];
            count_lower_bytes(packed.x, upper.index);
            count_lower_bytes(packed.y, upper.index);
            count_lower_bytes(packed.z, upper.index);
            count_lower_bytes(packed.w, upper.index);
        }
    }
    var bin = find_bin(upper.below, lane);
    var cut = Cut((upper.index << 8u) | bin.index, 0u, EVERY);
    // However few are asked for, every weight that is zero goes.
    if cut.threshold != 0u && bin.below + bin.count > params.k {
        if params.key_bits == 32u {
            // The 8 bits below the logarithm's, then the last 5.
            var next = EVERY;
            for (var round = 0u; round < 2u; round += 1u) {
                count_low_bits(row, cut.threshold, next, lane);
                bin = find_bin(bin.below, lane);
                next = bin.index;
                cut.low_bits = (cut.low_bits << 5u) | next;
            }
        }
        cut.ties = params.k - min(bin.below, params.k);
    }
    return cut;
}

// The bits of a weight's order key that its logarithm leaves out; of a vanished score none.
fn low_bits(row: u32, column: u32, log: u32) -> u32 {
    return select(order_key(row, column) & 0x1fffu, 0u, log < 2u);
}

// Adds to the histogram what follows a logarithm in the order keys of the columns at the threshold: the upper 8 of the
// low bits, or where these are `next` the last 5. For 256 invocations.
fn count_low_bits(row: u32, threshold: u32, next: u32, lane: u32) {
    for (var start = 0u; start < params.mask_words; start += 256u) {
        let word = start + lane;
        if word < params.mask_words {
            for (var rest = bits_equal(word, threshold); rest != 0u; rest &= rest - 1u) {
                let bits = low_bits(row, word * 32u + firstTrailingBit(rest), threshold);
                if next == EVERY {
                    atomicAdd(&histogram[bits >> 5u], 1u);
                } else if (bits >> 5u) == next {
                    atomicAdd(&histogram[bits & 31u], 1u);
                }
            }
        }
    }
}

// A bit a column of eight.
fn bits_of(even: vec4<bool>, odd: vec4<bool>) -> u32 {
    let bits = select(vec4<u32>(0u), vec4<u32>(1u, 4u, 16u, 64u), even) | select(vec4<u32>(0u), vec4<u32>(2u, 8u, 32u, 128u), odd);
    return bits.x | bits.y | bits.z | bits.w;
}

fn bits_below(word: u32, threshold: u32) -> u32 {
    var bits = 0u;
    for (var i = 0u; i < 4u; i += 1u) {
        let here = unpack(logs[place(word * 4u + i)]);
        bits |= bits_of(here.even < vec4<u32>(threshold), here.odd < vec4<u32>(threshold)) << (8u * i);
    }
    return bits;
}

fn bits_equal(word: u32, threshold: u32) -> u32 {
    var bits = 0u;
    for (var i = 0u; i < 4u; i += 1u) {
        let here = unpack(logs[place(word * 4u + i)]);
        bits |= bits_of(here.even == vec4<u32>(threshold), here.odd == vec4<u32>(threshold)) << (8u * i);
    }
    return bits;
}

// Writes the mask of a row. For 256 invocations.
fn write_mask(row: u32, cut: Cut, lane: u32) {
    if cut.ties == EVERY {
        for (var start = 0u; start < params.mask_words; start += 256u) {
            let word = start + lane;
            if word < params.mask_words {
                mask[row * params.mask_words + word] = bits_below(word, cut.threshold + 1u);
            }
        }
        return;
    }
    var ties_before = 0u;
    for (var first = 0u; first < params.mask_words; first += 256u) {
        let word = first + lane;
        var bits = 0u;
        var equal = 0u;
        if word < params.mask_words {
            bits = bits_below(word, cut.threshold);
            equal = bits_equal(word, cut.threshold);
            if params.key_bits == 32u {
                for (var rest = equal; rest != 0u; rest &= rest - 1u) {
                    let bit = firstTrailingBit(rest);
                    let own = low_bits(row, word * 32u + bit, cut.threshold);
                    if own != cut.low_bits {
                        equal ^= 1u << bit;
                    }
                    bits |= select(0u, 1u, own < cut.low_bits) << bit;
                }
            }
        }
        bits |= first_ties(equal, cut.ties - min(ties_before, cut.ties), lane);
        ties_before += ties_of_all();
        if word < params.mask_words {
            mask[row * params.mask_words + word] = bits;
        }
        workgroupBarrier();
    }
}
