// Pass 3, block-wise EWMA: from order keys to threshold keys.
//
// The statistics of a batch of blocks (a workgroup), the moving average along a row (one invocation), the normalised
// score of a weight. Threshold keys are biased by 32768, as unsigned numbers. The keys come from order_key(row, column):
// passes/score, or an entry point that reads stored ones.
//
// Twin: src/passes/ewma.rs
// Needs: shared/params

// Per row and block, while they are statistics: live weights, mean, deviation. Then the average: 0 before the first
// live weight or 1, mean, deviation, reciprocal of the deviation. Means and deviations have 7 fraction bits.
@group(0) @binding(3) var<storage, read_write> averages: array<vec4<u32>>;

// Blocks a batch, and invocations for each.
const BATCH: u32 = 8u;
const BLOCK_LANES: u32 = 32u;

var<workgroup> live_counts: array<atomic<u32>, 8>;
var<workgroup> key_sums: array<atomic<u32>, 8>;
var<workgroup> distance_sums: array<atomic<u32>, 8>;
var<workgroup> statistics: array<vec4<u32>, 8>;

fn is_live(key: u32) -> bool {
    return key >= SMALLEST_LIVE && key < NON_FINITE;
}

// sum / count with 7 fraction bits, rounded down, without leaving 32 bits; count is not 0.
fn fixed_mean(sum: u32, count: u32) -> u32 {
    return (sum / count) * 128u + (sum % count) * 128u / count;
}

// Leaves the statistics of blocks first_block .. first_block + BATCH of a row in `statistics`, for 256 invocations.
fn batch_statistics(row: u32, first_block: u32, lane: u32) {
    let slot = lane / BLOCK_LANES;
    let start = (first_block + slot) << params.block_shift;
    let end = min(start + (1u << params.block_shift), params.in_features);
    if lane < BATCH {
        atomicStore(&live_counts[lane], 0u);
        atomicStore(&key_sums[lane], 0u);
        atomicStore(&distance_sums[lane], 0u);
    }
    workgroupBarrier();

    var count = 0u;
    var sum = 0u;
    for (var column = start + lane % BLOCK_LANES; column < end; column += BLOCK_LANES) {
        let key = order_key(row, column);
        if is_live(key) {
            count += 1u;
            sum += key >> 13u;
        }
    }
    atomicAdd(&live_counts[slot], count);
    atomicAdd(&key_sums[slot], sum);
    workgroupBarrier();

    let block_count = atomicLoad(&live_counts[slot]);
    let mean = fixed_mean(atomicLoad(&key_sums[slot]), max(block_count, 1u));
    let centre = (mean + 64u) >> 7u;
    var distance = 0u;
    for (var column = start + lane % BLOCK_LANES; column < end; column += BLOCK_LANES) {
        let key = order_key(row, column);
        if is_live(key) {
            let log = key >> 13u;
            distance += max(log, centre) - min(log, centre);
        }
    }
    atomicAdd(&distance_sums[slot], distance);
    workgroupBarrier();

    if lane % BLOCK_LANES == 0u {
        let deviation = fixed_mean(atomicLoad(&distance_sums[slot]), max(block_count, 1u));
        statistics[slot] = vec4<u32>(block_count, mean, deviation, 0u);
    }
    workgroupBarrier();
}

fn reciprocal(deviation: i32) -> u32 {
    return 0xffffffffu / max(u32(deviation), 256u);
}

fn average_of_nothing() -> vec4<u32> {
    return vec4<u32>(0u, 0u, 0u, reciprocal(0));
}

// The average after one more block.
fn follow(average: vec4<u32>, here: vec4<u32>) -> vec4<u32> {
    var after = average;
    if here.x != 0u {
        var mean = i32(here.y);
        var deviation = i32(here.z);
        if average.x != 0u {
            mean = i32(average.y) + ((mean - i32(average.y)) >> params.gain_shift);
            deviation = i32(average.z) + ((deviation - i32(average.z)) >> params.gain_shift);
        }
        after = vec4<u32>(1u, u32(mean), u32(deviation), reciprocal(deviation));
    }
    return after;
}

// The threshold keys of live scores whose logarithms, as the average was made of them, are given.
fn normalised(logs: vec4<u32>, average: vec4<u32>) -> vec4<u32> {
    // Both factors are exact in f32; the scale is the reciprocal times 2^-19.
    let scale = f32(average.w) * bitcast<f32>(0x36000000u);
    let difference = vec4<i32>(32u * logs) - (i32(average.y) >> 2u);
    let z = vec4<i32>(vec4<f32>(difference) * scale);
    return vec4<u32>(clamp(z, vec4<i32>(-32766), vec4<i32>(32766)) + 32768);
}

fn threshold_key(key: u32, average: vec4<u32>) -> u32 {
    // 0 for a weight that is zero, 1 for a score that is.
    var threshold_key = min(key, 1u);
    if is_live(key) {
        threshold_key = normalised(vec4<u32>(key >> 13u), average).x;
    } else if key >= NON_FINITE {
        threshold_key = 65535u;
    }
    return threshold_key;
}
