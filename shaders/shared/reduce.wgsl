// A sum, or the largest, of one value of each lane of a workgroup, for each of them: halves are folded until one is left.
// The lanes are LANES, a power of two, which the file that needs this says.

var<workgroup> lane_values: array<f32, LANES>;

fn sum_of_lanes(lane: u32, value: f32) -> f32 {
    lane_values[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lane_values[lane] += lane_values[lane + half];
        }
        workgroupBarrier();
    }
    let sum = lane_values[0];
    workgroupBarrier();
    return sum;
}

fn largest_of_lanes(lane: u32, value: f32) -> f32 {
    lane_values[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lane_values[lane] = max(lane_values[lane], lane_values[lane + half]);
        }
        workgroupBarrier();
    }
    let largest = lane_values[0];
    workgroupBarrier();
    return largest;
}
