// The moving average over a row's logarithms, which become threshold keys where they lie.
//
// Twin: src/passes/row_logs/ewma.rs, which leaves the logarithms as they are: src/passes/row_logs/mod.rs
// Needs: passes/ewma, passes/row_logs/score, passes/row_logs/select

// Most blocks of a row; the least block has the 32 columns of a word of the mask.
const MAX_BLOCKS: u32 = 256u;
// The deviation of a block without live scores.
const EMPTY: u32 = 0xffffffffu;

// Of each block: the sum of its logarithms, then their mean, then the average's.
var<workgroup> block_means: array<atomic<u32>, MAX_BLOCKS>;
// Of each block: how many columns have no live score, then the sum of the distances, the deviation, the average's.
var<workgroup> block_deviations: array<atomic<u32>, MAX_BLOCKS>;

fn is_gap(logs: vec4<u32>) -> vec4<bool> {
    return (logs - vec4<u32>(2u)) >= vec4<u32>(ABSENT - 2u);
}

fn total(parts: vec4<u32>) -> u32 {
    return parts.x + parts.y + parts.z + parts.w;
}

// The block that a word's 32 columns lie in: the host gives a span only where blocks are no smaller.
fn block_of(word: u32) -> u32 {
    return word >> (params.block_shift - 5u);
}

// Whether all 32 columns of a word have live scores.
fn is_live_word(word: u32, kind: u32) -> bool {
    return kind == LIVE && word * 32u + 32u <= params.in_features;
}

fn distances(logs: vec4<u32>, centre: vec4<u32>) -> vec4<u32> {
    return max(logs, centre) - min(logs, centre);
}

// Leaves the averages of each block: means and deviations. For 256 invocations.
fn measure(kind: u32, lane: u32) {
    atomicStore(&block_means[lane], 0u);
    atomicStore(&block_deviations[lane], 0u);
    workgroupBarrier();
    for (var start = 0u; start < params.mask_words; start += 256u) {
        let word = start + lane;
        if word < params.mask_words {
            let block = block_of(word);
            var sum = vec4<u32>(0u);
            if is_live_word(word, kind) {
                for (var i = 0u; i < 4u; i += 1u) {
                    let here = unpack(logs[place(word * 4u + i)]);
                    sum += here.even + here.odd;
                }
            } else {
                var gaps = vec4<u32>(0u);
                for (var i = 0u; i < 4u; i += 1u) {
                    let here = unpack(logs[place(word * 4u + i)]);
                    sum += select(here.even, vec4<u32>(0u), is_gap(here.even));
                    sum += select(here.odd, vec4<u32>(0u), is_gap(here.odd));
                    gaps += select(vec4<u32>(0u), vec4<u32>(1u), is_gap(here.even));
                    gaps += select(vec4<u32>(0u), vec4<u32>(1u), is_gap(here.odd));
                }
                atomicAdd(&block_deviations[block], total(gaps));
            }
            atomicAdd(&block_means[block], total(sum));
        }
    }
    workgroupBarrier();

    var count = 0u;
    if lane < params.blocks {
        let words_a_block = 1u << (params.block_shift - 5u);
        let words = min(words_a_block, params.mask_words - lane * words_a_block);
        count = words * 32u - atomicLoad(&block_deviations[lane]);
        atomicStore(&block_means[lane], fixed_mean(atomicLoad(&block_means[lane]), max(count, 1u)));
        atomicStore(&block_deviations[lane], 0u);
    }
    workgroupBarrier();
    for (var start = 0u; start < params.mask_words; start += 256u) {
        let word = start + lane;
        if word < params.mask_words {
            let block = block_of(word);
            let centre = vec4<u32>((atomicLoad(&block_means[block]) + 64u) >> 7u);
            var sum = vec4<u32>(0u);
            if is_live_word(word, kind) {
                for (var i = 0u; i < 4u; i += 1u) {
                    let here = unpack(logs[place(word * 4u + i)]);
                    sum += distances(here.even, centre) + distances(here.odd, centre);
                }
            } else {
                for (var i = 0u; i < 4u; i += 1u) {
                    let here = unpack(logs[place(word * 4u + i)]);
                    sum += select(distances(here.even, centre), vec4<u32>(0u), is_gap(here.even));
                    sum += select(distances(here.odd, centre), vec4<u32>(0u), is_gap(here.odd));
                }
            }
            atomicAdd(&block_deviations[block], total(sum));
        }
    }
    workgroupBarrier();
    if lane < params.blocks {
        let deviation = fixed_mean(atomicLoad(&block_deviations[lane]), max(count, 1u));
        atomicStore(&block_deviations[lane], select(deviation, EMPTY, count == 0u));
    }
    workgroupBarrier();
    var average = average_of_nothing();
    for (var block = 0u; block < params.blocks; block += 1u) {
        if lane == 0u {
            let deviation = atomicLoad(&block_deviations[block]);
            let is_empty = u32(deviation == EMPTY);
            average = follow(average, vec4<u32>(1u - is_empty, atomicLoad(&block_means[block]), deviation, 0u));
            atomicStore(&block_means[block], average.y);
            atomicStore(&block_deviations[block], average.z);
        }
    }
    workgroupBarrier();
}

fn threshold_keys(logs: vec4<u32>, average: vec4<u32>, is_live: bool) -> vec4<u32> {
    var keys = normalised(logs, average);
    if !is_live {
        // 0, 1 and ABSENT stand for the same among logarithms and keys.
        keys = select(keys, logs, is_gap(logs));
    }
    return keys;
}

// Turns the row's logarithms into threshold keys, and adds their upper bytes to the histogram. For 256 invocations.
fn normalise_logs(kind: u32, lane: u32) {
    for (var start = 0u; start < params.mask_words; start += 256u) {
        let word = start + lane;
        if word < params.mask_words {
            let block = block_of(word);
            let mean = atomicLoad(&block_means[block]);
            let deviation = atomicLoad(&block_deviations[block]);
            let average = vec4<u32>(1u, mean, deviation, reciprocal(i32(deviation)));
            let is_live = is_live_word(word, kind);
            for (var i = 0u; i < 4u; i += 1u) {
                let at = place(word * 4u + i);
                let here = unpack(logs[at]);
                let keys = pack(Eight(threshold_keys(here.even, average, is_live), threshold_keys(here.odd, average, is_live)));
                logs[at] = keys;
                count_upper_bytes(keys);
            }
        }
    }
}
