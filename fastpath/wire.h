/* Protocol buffers, as they lie in bytes: reading with every length checked, writing from the end backwards.
 *
 * A reading function gives 1, or 0 where the bytes are not to be read: then nothing that it gave counts. What is read
 * here google.protobuf reads to the same values; what it refuses is refused here. The few things that it takes and
 * this does not (unknown groups many levels deep) are its business: see `NotRead` in wire.pyx.
 */
#ifndef FASTPATH_WIRE_H
#define FASTPATH_WIRE_H

#include <stdint.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_FIXED32 = 5 };
enum { WIRE_DEPTH = 16 };  /* of unknown groups within each other */

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} wire_span;

/* At most `most` bytes, ten for a number and five for a tag or a length; the last of ten has one bit. */
static inline int wire_varint_of(wire_span *in, uint64_t *value, int most) {
    uint64_t found = 0;
    for (int n = 0; n < most && in->at < in->end; n++) {
        uint8_t each = *in->at++;
        if (n == 9 && each > 1) return 0;
        found |= (uint64_t) (each & 0x7f) << (7 * n);
        if (each < 0x80) {
            *value = found;
            return 1;
        }
    }
    return 0;
}

static inline int wire_varint(wire_span *in, uint64_t *value) {
    return wire_varint_of(in, value, 10);
}

static inline int wire_tag(wire_span *in, uint32_t *number, uint32_t *type) {
    uint64_t tag;
    if (!wire_varint_of(in, &tag, 5) || tag > UINT32_MAX) return 0;
    *number = (uint32_t) tag >> 3;
    *type = (uint32_t) tag & 7;
    return *number != 0;
}

static inline int wire_bytes(wire_span *in, wire_span *out) {
    uint64_t size;
    if (!wire_varint_of(in, &size, 5) || size > (uint64_t) (in->end - in->at)) return 0;
    out->at = in->at;
    out->end = in->at += size;
    return 1;
}

static inline int wire_fixed(wire_span *in, void *value, long size) {
    if (in->end - in->at < size) return 0;
    memcpy(value, in->at, size);
    in->at += size;
    return 1;
}

/* An unknown field, its tag read already; the end of a group is none. */
static int wire_skip(wire_span *in, uint32_t number, uint32_t type) {
    uint32_t open[WIRE_DEPTH];
    int depth = 0;
    for (;;) {
        uint64_t value;
        wire_span bytes;
        switch (type) {
        case WIRE_VARINT: if (!wire_varint(in, &value)) return 0; break;
        case WIRE_FIXED64: if (!wire_fixed(in, &value, 8)) return 0; break;
        case WIRE_FIXED32: if (!wire_fixed(in, &value, 4)) return 0; break;
        case WIRE_BYTES: if (!wire_bytes(in, &bytes)) return 0; break;
        case WIRE_GROUP:
            if (depth == WIRE_DEPTH) return 0;
            open[depth++] = number;
            break;
        case WIRE_GROUP_END:
            if (depth == 0 || open[--depth] != number) return 0;
            break;
        default: return 0;
        }
        if (depth == 0) return 1;
        if (!wire_tag(in, &number, &type)) return 0;
    }
}

/* Well-formed as The Unicode Standard, table 3-7, has it: no surrogates, nothing longer than it must be. */
static int wire_is_utf8(const wire_span *text) {
    const uint8_t *at = text->at;
    while (at < text->end) {
        uint8_t first = *at++, low = 0x80, high = 0xbf;
        int more;
        if (first < 0x80) continue;
        if (first >= 0xc2 && first <= 0xdf) more = 1;
        else if (first >= 0xe0 && first <= 0xef) more = 2;
        else if (first >= 0xf0 && first <= 0xf4) more = 3;
        else return 0;
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
        if (text->end - at < more) return 0;
        for (; more > 0; more--, at++, low = 0x80, high = 0xbf)
            if (*at < low || *at > high) return 0;
    }
    return 1;
}

static inline int wire_text(wire_span *in, wire_span *out) {
    return wire_bytes(in, out) && wire_is_utf8(out);
}

/* -- writing: fields of a message from its last to its first, each from its end to its tag ---------------------- */

typedef struct {
    uint8_t *at;     /* what is written begins here */
    uint8_t *begin;  /* of the room */
    int full;        /* something found no room: nothing that was written counts */
} wire_out;

static inline uint8_t *wire_room(wire_out *out, uint64_t size) {
    if (out->full || size > (uint64_t) (out->at - out->begin)) {
        out->full = 1;
        return 0;
    }
    return out->at -= size;
}

static inline void wire_put(wire_out *out, const void *bytes, uint64_t size) {
    uint8_t *room = wire_room(out, size);
    if (room && size) memcpy(room, bytes, size);
}

static inline void wire_put_varint(wire_out *out, uint64_t value) {
    uint8_t bytes[10];
    int n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t) value | 0x80;
    bytes[n++] = (uint8_t) value;
    wire_put(out, bytes, n);
}

static inline void wire_put_tag(wire_out *out, uint32_t number, uint32_t type) {
    wire_put_varint(out, number << 3 | type);
}

/* Numbers that are zero are left out; a float's sign counts, as google.protobuf has it. */
static inline void wire_put_number(wire_out *out, uint32_t number, uint64_t value) {
    if (value == 0) return;
    wire_put_varint(out, value);
    wire_put_tag(out, number, WIRE_VARINT);
}

static inline void wire_put_double(wire_out *out, uint32_t number, double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    if (bits == 0) return;
    wire_put(out, &bits, 8);
    wire_put_tag(out, number, WIRE_FIXED64);
}

static inline void wire_put_float(wire_out *out, uint32_t number, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (bits == 0) return;
    wire_put(out, &bits, 4);
    wire_put_tag(out, number, WIRE_FIXED32);
}

/* A message that ends where `end` was when it was begun; an empty one too. */
static inline void wire_put_message(wire_out *out, uint32_t number, const uint8_t *end) {
    if (out->full) return;
    wire_put_varint(out, (uint64_t) (end - out->at));
    wire_put_tag(out, number, WIRE_BYTES);
}

static inline void wire_put_bytes(wire_out *out, uint32_t number, const void *bytes, uint64_t size) {
    const uint8_t *end = out->at;
    if (size == 0) return;
    wire_put(out, bytes, size);
    wire_put_message(out, number, end);
}

#endif
