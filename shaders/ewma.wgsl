// Pass 3, block-wise EWMA: order keys become threshold keys, in place. Twin: src/passes/ewma.rs.
//
// Three dispatches: the statistics of every block (a workgroup each), the moving average along a row (an invocation
// a row), the normalised score of every weight. Threshold keys are stored biased by 32768, as unsigned numbers.

@group(0) @binding(1) var<storage, read_write> keys: array<u32>;
// Per row and block: live weights seen (0 or more), mean, deviation; the last two with 7 fraction bits.
@group(0) @binding(2) var<storage, read_write> averages: array<vec4<u32>>;

var<workgroup> live_count: atomic<u32>;
var<workgroup> key_sum: atomic<u32>;
var<workgroup> distance_sum: atomic<u32>;

fn is_live(key: u32) -> bool {
    return key >= SMALLEST_LIVE && key < NON_FINITE;
}

// sum / count with 7 fraction bits, rounded down, without leaving 32 bits; count is not 0.
fn fixed_mean(sum: u32, count: u32) -> u32 {
    return (sum / count) * 128u + (sum % count) * 128u / count;
}

@compute @workgroup_size(64)
fn block_statistics(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let block = group.x;
    let start = block << params.block_shift;
    let end = min(start + (1u << params.block_shift), params.in_features);
    let base = row * params.in_features;
    if lane == 0u {
        atomicStore(&live_count, 0u);
        atomicStore(&key_sum, 0u);
        atomicStore(&distance_sum, 0u);
    }
    workgroupBarrier();

    var count = 0u;
    var sum = 0u;
    for (var column = start + lane; column < end; column += 64u) {
        let key = keys[base + column];
        if is_live(key) {
            count += 1u;
            sum += key >> 13u;
        }
    }
    atomicAdd(&live_count, count);
    atomicAdd(&key_sum, sum);
    workgroupBarrier();

    let block_count = atomicLoad(&live_count);
    let mean = fixed_mean(atomicLoad(&key_sum), max(block_count, 1u));
    let centre = i32((mean + 64u) >> 7u);
    var distance = 0u;
    for (var column = start + lane; column < end; column += 64u) {
        let key = keys[base + column];
        if is_live(key) {
            distance += u32(abs(i32(key >> 13u) - centre));
        }
    }
    atomicAdd(&distance_sum, distance);
    workgroupBarrier();

    if lane == 0u {
        let deviation = fixed_mean(atomicLoad(&distance_sum), max(block_count, 1u));
        averages[row * params.blocks + block] = vec4<u32>(block_count, mean, deviation, 0u);
    }
}

@compute @workgroup_size(64)
fn moving_average(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= params.rows {
        return;
    }
    var started = false;
    var mean = 0;
    var deviation = 0;
    for (var block = 0u; block < params.blocks; block += 1u) {
        let index = row * params.blocks + block;
        let here = averages[index];
        if here.x != 0u {
            if started {
                mean += (i32(here.y) - mean) >> params.gain_shift;
                deviation += (i32(here.z) - deviation) >> params.gain_shift;
            } else {
                mean = i32(here.y);
                deviation = i32(here.z);
                started = true;
            }
        }
        averages[index] = vec4<u32>(here.x, u32(mean), u32(deviation), 0u);
    }
}

@compute @workgroup_size(256)
fn normalise(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let column = group.x * 256u + lane;
    if column >= params.in_features {
        return;
    }
    let index = row * params.in_features + column;
    let key = keys[index];
    var threshold_key = 0u; // a weight that is zero
    if is_live(key) {
        let average = averages[row * params.blocks + (column >> params.block_shift)];
        let reciprocal = 0xffffffffu / max(average.z, 256u);
        // Both factors are exact in f32; the scale is the reciprocal times 2^-19.
        let scale = f32(reciprocal) * bitcast<f32>(0x36000000u);
        let difference = i32(32u * (key >> 13u)) - (i32(average.y) >> 2u);
        let z = i32(f32(difference) * scale);
        threshold_key = u32(clamp(z, -32766, 32766) + 32768);
    } else if key >= NON_FINITE {
        threshold_key = 65535u;
    } else if key != 0u {
        threshold_key = 1u;
    }
    keys[index] = threshold_key;
}
