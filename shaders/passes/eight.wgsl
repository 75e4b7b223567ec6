// Eight columns of a row at a time: what is stored of them is read by neighbours side by side, and the word of two 16-bit
// weights once.
//
// No twin: this is how a device reads memory; the CPU's loops over columns are made vectors by the compiler.
// Needs: shared/params, shared/decode, passes/score

struct Eight {
    even: vec4<u32>,
    odd: vec4<u32>,
}

fn unpack(packed: vec4<u32>) -> Eight {
    return Eight(packed & vec4<u32>(65535u), packed >> vec4<u32>(16u));
}

fn pack(columns: Eight) -> vec4<u32> {
    return columns.even | (columns.odd << vec4<u32>(16u));
}

fn words_of_weights(at: u32) -> vec4<u32> {
    return vec4<u32>(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]);
}

// |w| of eight columns, all within the row.
fn magnitudes(row: u32, first: u32) -> Eight {
    let index = row * params.in_features + first;
    var magnitudes: Eight;
    if params.dtype > F16 {
        let low = words_of_weights(index) & vec4<u32>(0x7fffffffu);
        let high = words_of_weights(index + 4u) & vec4<u32>(0x7fffffffu);
        magnitudes = Eight(vec4<u32>(low.xz, high.xz), vec4<u32>(low.yw, high.yw));
    } else {
        var words = words_of_weights(index >> 1u);
        if (index & 1u) != 0u {
            // Rows of an odd length: every other one starts in a word's upper half.
            let next = weights[(index >> 1u) + 4u];
            words = (words >> vec4<u32>(16u)) | (vec4<u32>(words.yzw, next) << vec4<u32>(16u));
        }
        let halves = unpack(words & vec4<u32>(0x7fff7fffu));
        magnitudes = Eight(magnitudes_of_halves(halves.even), magnitudes_of_halves(halves.odd));
    }
    return magnitudes;
}

// What |w| is multiplied by, of every other column, four of them.
fn multipliers(row: u32, first: u32) -> vec4<f32> {
    var multipliers = vec4<f32>(factors[first], factors[first + 2u], factors[first + 4u], factors[first + 6u]);
    if params.row_scored != 0u {
        let at = params.in_features + first;
        let column_terms = vec4<f32>(factors[at], factors[at + 2u], factors[at + 4u], factors[at + 6u]);
        multipliers = with_terms(multipliers, column_terms, row);
    }
    return multipliers;
}
