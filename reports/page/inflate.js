// Unpacks text that the page carries as gzip in base64 (looks.packed). The browser's own DecompressionStream is asynchronous;
// a page that is printed or saved as a picture right away is unpacked here at once, so that it has its charts. RFC 1951.

// Lengths and distances of copies: the first of each code, and how many bits follow it.
const LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCES = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12289, 16385, 24577];
const DISTANCE_BITS = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const CODE_BITS = 15;

// A canonical Huffman code from the length of each symbol's code: how many codes have each length, and the symbols in order.
function codeOf(lengths) {
  const counts = new Uint16Array(CODE_BITS + 1);
  for (const length of lengths) counts[length] += 1;
  counts[0] = 0;
  const places = new Uint16Array(CODE_BITS + 1);
  for (let bits = 1; bits < CODE_BITS; bits += 1) places[bits + 1] = places[bits] + counts[bits];
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => { if (length) symbols[places[length]++] = symbol; });
  return { counts, symbols };
}

const fixed = [codeOf(Array.from({ length: 288 }, (_, k) => (k < 144 ? 8 : k < 256 ? 9 : k < 280 ? 7 : 8))), codeOf(Array(30).fill(5))];

function inflated(bytes, from, size) {
  const out = new Uint8Array(size);
  let at = from, end = 0, held = 0, count = 0;
  function bits(wanted) {
    while (count < wanted) {
      if (at >= bytes.length) throw new Error("the packed data is cut short");
      held |= bytes[at++] << count;
      count += 8;
    }
    const value = held & ((1 << wanted) - 1);
    held >>>= wanted;
    count -= wanted;
    return value;
  }
  function symbolOf({ counts, symbols }) {
    let code = 0, first = 0, place = 0;
    for (let length = 1; length <= CODE_BITS; length += 1) {
      code |= bits(1);
      const here = counts[length];
      if (code - here < first) return symbols[place + code - first];
      place += here;
      first = (first + here) << 1;
      code <<= 1;
    }
    throw new Error("the packed data is damaged");
  }
  function dynamic() {
    const [literals, distances, given] = [bits(5) + 257, bits(5) + 1, bits(4) + 4];
    const own = new Uint8Array(19);
    for (let k = 0; k < given; k += 1) own[ORDER[k]] = bits(3);
    const code = codeOf(own), lengths = [];
    while (lengths.length < literals + distances) {
      const symbol = symbolOf(code);
      if (symbol < 16) lengths.push(symbol);
      else {
        const [value, times] = symbol === 16 ? [lengths.at(-1), 3 + bits(2)] : [0, symbol === 17 ? 3 + bits(3) : 11 + bits(7)];
        for (let k = 0; k < times; k += 1) lengths.push(value);
      }
    }
    return [codeOf(lengths.slice(0, literals)), codeOf(lengths.slice(literals))];
  }
  function block([literal, distance]) {
    for (let symbol = symbolOf(literal); symbol !== 256; symbol = symbolOf(literal)) {
      if (symbol < 256) out[end++] = symbol;
      else {
        const length = LENGTHS[symbol - 257] + bits(LENGTH_BITS[symbol - 257]);
        const code = symbolOf(distance);
        const back = DISTANCES[code] + bits(DISTANCE_BITS[code]);
        for (let k = 0; k < length; k += 1, end += 1) out[end] = out[end - back];
      }
    }
  }
  for (let isLast = 0; !isLast;) {
    isLast = bits(1);
    const kind = bits(2);
    if (kind) block(kind === 1 ? fixed : dynamic());
    else {
      held = count = 0;
      const length = bytes[at] | (bytes[at + 1] << 8);
      out.set(bytes.subarray(at + 4, at + 4 + length), end);
      at += 4 + length;
      end += length;
    }
  }
  return out;
}

// Texts that are already unpacked, by id.
const texts = {};
const packed = (id) => Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));

async function unpackSoon(id) {
  const stream = new Blob([packed(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
  texts[id] = await new Response(stream).text();
}

function unpacked(id) {
  if (texts[id] === undefined) {
    const bytes = packed(id);
    if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) throw new Error("the packed data is damaged");
    // After a head of 10 bytes come the data and, in the last four, the size.
    const size = new DataView(bytes.buffer).getUint32(bytes.length - 4, true);
    texts[id] = new TextDecoder().decode(inflated(bytes, 10, size));
  }
  return texts[id];
}
