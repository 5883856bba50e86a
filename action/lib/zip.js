// A zip archive with one file: what GitHub keeps artifacts as.
//
// Law: pure. Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.

import { crc32, deflateRawSync } from "node:zlib";

const VERSION = 20; // 2.0: deflate
const UTF8 = 0x0800; // general purpose bit 11: the name is UTF-8
const DEFLATED = 8;
const MIDNIGHT = 0x0021; // 1 January 1980: the archive's bytes depend on the content alone

/** `content` (a Buffer below 4 GiB) as the file `name` of an archive. */
export function zip(name, content) {
  const path = Buffer.from(name, "utf8");
  const packed = deflateRawSync(content);
  const facts = Buffer.alloc(26); // what both headers say of the file, from "version needed" on
  [VERSION, UTF8, DEFLATED, 0, MIDNIGHT].forEach((value, at) => facts.writeUInt16LE(value, at * 2));
  [crc32(content), packed.length, content.length].forEach((value, at) => facts.writeUInt32LE(value, 10 + at * 4));
  facts.writeUInt16LE(path.length, 22);

  const local = Buffer.concat([u32(0x04034b50), facts, path, packed]);
  const comment = Buffer.alloc(14); // no comment, disk 0, no attributes, offset 0
  const central = Buffer.concat([u32(0x02014b50), u16(VERSION), facts, comment, path]);
  const end = [u32(0x06054b50), u16(0), u16(0), u16(1), u16(1), u32(central.length), u32(local.length), u16(0)];
  return Buffer.concat([local, central, ...end]);
}

function u16(value) {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16LE(value);
  return buffer;
}

function u32(value) {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}
