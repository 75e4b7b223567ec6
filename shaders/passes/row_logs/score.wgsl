// A row as the 16-bit logarithms of its scores, in workgroup memory: read once, where the keys are computed each time they
// are needed.
//
// A live score's logarithm is its order key's upper bits, less span_base's, plus 2: the passes only see differences of
// them. 0 stands for a weight that is zero, 1 for a score that has vanished, ABSENT for the columns past the last, which so
// come after all others.
//
// Twin: src/passes/row_logs/score.rs, which stores other numbers for the same scores: src/passes/row_logs/mod.rs
// Needs: passes/score, passes/eight

// Eight columns a vector, an even column in a component's lower half. CAPACITY is the entry point's.
var<workgroup> logs: array<vec4<u32>, CAPACITY / 8u>;
// What is in the row, ORed.
var<workgroup> found_in_row: atomic<u32>;
var<workgroup> row_kind: u32;

const ABSENT: u32 = 65535u;
// Order keys from params.span_base up to the first whose logarithm would be ABSENT: nearly 64 octaves.
const SPAN: u32 = 0x1fffa000u;

// Kinds of rows: live scores within the span; zeros or vanished scores too; anything else, for which there are no logs.
const LIVE: u32 = 0u;
const WITH_GAPS: u32 = 1u;
const ODD: u32 = 2u;

// Where eight columns lie. An invocation reads the eights of its own word of the mask, four on end: exchanged like this,
// neighbours' are not in the same memory banks.
fn place(eight: u32) -> u32 {
    return eight ^ ((eight >> 3u) & 3u);
}

// How far above the span's lowest score; SPAN or more for one that is not in it, or not live.
fn above(magnitude: vec4<u32>, multiplier: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(values(magnitude) * multiplier) - vec4<u32>(params.span_base);
}

// The logarithm of any column in the lower half, and what was found above it.
fn log_of(row: u32, column: u32) -> u32 {
    var log = ABSENT;
    if column < params.in_features {
        let key = order_key(row, column);
        let above = key - params.span_base;
        log = select(ODD << 16u, (above >> 13u) + 2u, above < SPAN);
        if key < SMALLEST_LIVE {
            log = key | (WITH_GAPS << 16u);
        }
    }
    return log;
}

// Stores the logarithms of eight columns of any kind; returns what was found.
fn store_any(row: u32, eight: u32) -> u32 {
    var packed = vec4<u32>(0u);
    var found = 0u;
    for (var i = 0u; i < 8u; i += 1u) {
        let log = log_of(row, eight * 8u + i);
        let is_here = vec4<u32>(i >> 1u) == vec4<u32>(0u, 1u, 2u, 3u);
        packed |= select(vec4<u32>(0u), vec4<u32>((log & 65535u) << (16u * (i & 1u))), is_here);
        found |= log >> 16u;
    }
    logs[place(eight)] = packed;
    return found;
}

// Stores the logarithms of a row, as far as it has them, and returns its kind. For 256 invocations.
fn store_logs(row: u32, lane: u32) -> u32 {
    if lane == 0u {
        atomicStore(&found_in_row, LIVE);
    }
    workgroupBarrier();
    // Nearly every row has live scores only, and whatever else there is lies outside the span. If there is, again.
    var kind = store_round(row, true, lane);
    if kind != LIVE {
        kind = store_round(row, false, lane);
    }
    return kind;
}

// Stores the logarithms of a row, hastily or with whatever it has, and returns its kind. For 256 invocations.
fn store_round(row: u32, is_hasty: bool, lane: u32) -> u32 {
    let found = store_own(row, is_hasty, lane);
    if found != 0u {
        atomicOr(&found_in_row, found);
    }
    workgroupBarrier();
    if lane == 0u {
        row_kind = atomicLoad(&found_in_row);
    }
    return min(workgroupUniformLoad(&row_kind), ODD);
}

// Stores the logarithms of this invocation's columns, and returns what was found: for a hasty one, whether there is
// anything but live scores.
fn store_own(row: u32, is_hasty: bool, lane: u32) -> u32 {
    var highest = vec4<u32>(0u);
    var largest = vec4<u32>(0u);
    var found = 0u;
    for (var start = 0u; start < params.mask_words * 4u; start += 256u) {
        let eight = start + lane;
        if eight < params.mask_words * 4u {
            let first = eight * 8u;
            if is_hasty && first + 8u <= params.in_features {
                let here = magnitudes(row, first);
                let even = above(here.even, multipliers(row, first));
                let odd = above(here.odd, multipliers(row, first + 1u));
                highest = max(highest, max(even, odd));
                largest = max(largest, max(here.even, here.odd));
                logs[place(eight)] = pack(Eight(even >> vec4<u32>(13u), odd >> vec4<u32>(13u))) + vec4<u32>(0x00020002u);
            } else {
                found |= store_any(row, eight);
            }
        }
    }
    let is_outside = any(highest >= vec4<u32>(SPAN)) || any(largest >= vec4<u32>(NON_FINITE));
    return found | select(LIVE, WITH_GAPS, is_outside);
}
