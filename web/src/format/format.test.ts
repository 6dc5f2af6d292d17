// Numbers, times and labels read as people write them.
import { describe, expect, it } from "vitest";
import { byteRate, bytes, count, figure, percent, plural, seconds, UNKNOWN } from "./numbers";
import { byteRateTicks, clock, percentTicks, plainTicks, secondTicks } from "./ticks";
import { ago, duration, elapsed } from "./times";

describe("numbers", () => {
  it("show the digits that matter and no more", () => {
    expect([5120.5, 98.63, 3.2149, 0.00345, 0].map((value) => figure(value))).toEqual(["5,121", "98.6", "3.21", "0.00345", "0"]);
  });

  it("are rounded before their form is chosen", () => {
    expect([999.4, 999.5, 999.7, -999.7, 0.00009999].map((value) => figure(value))).toEqual(["999", "1,000", "1,000", "-1,000", "0.000100"]);
    expect(seconds(0.9997)).toBe("1,000 ms");
  });

  it("go over to powers of ten where digits would run away", () => {
    expect([1.234e-7, 4.2e12, -0.00001].map((value) => figure(value))).toEqual(["1.23e-7", "4.20e+12", "-1.00e-5"]);
  });

  it.each([null, undefined, Number.NaN, Number.POSITIVE_INFINITY])("show %s as not known", (value) => {
    expect([count(value), figure(value), percent(value), seconds(value), bytes(value)]).toEqual(Array(5).fill(UNKNOWN));
  });

  it("carry the unit that suits them", () => {
    expect([0.0000042, 0.0032, 1.4, 0].map(seconds)).toEqual(["4.20 µs", "3.20 ms", "1.40 s", "0 s"]);
    expect([0, 1023, 65_536, 5 * 2 ** 30].map(bytes)).toEqual(["0 B", "1,023 B", "64.0 KiB", "5.00 GiB"]);
    expect([0, 1500, 110e6].map(byteRate)).toEqual(["0 B/s", "1.50 kB/s", "110 MB/s"]);
    expect(byteRateTicks([0, 50e6, 100e6], 50e6)).toEqual(["0 MB/s", "50 MB/s", "100 MB/s"]);
    expect(percent(0.9781)).toBe("97.8\u202f%");
    expect([plural(1, "node"), plural(2, "node")]).toEqual(["1 node", "2 nodes"]);
  });
});

describe("times", () => {
  const moment = "2026-11-23T06:00:00.000Z";
  const now = Date.parse(moment);

  it("say how long ago in one unit", () => {
    expect([4, 42, 190, 7300].map((s) => ago(moment, now + s * 1000))).toEqual([
      "just now",
      "42 seconds ago",
      "3 minutes ago",
      "2 hours ago",
    ]);
  });

  it("do not speak of the future where a clock is a little ahead", () => {
    expect(ago(moment, now - 3000)).toBe("just now");
  });

  it("give lengths in two units", () => {
    expect([42, 185, 7800, 100_800, -3].map(duration)).toEqual(["42 s", "3 min 05 s", "2 h 10 min", "1 d 4 h", "0 s"]);
  });

  it("count to the end, to now while there is none, and not at all before the start", () => {
    expect(elapsed(moment, "2026-11-23T06:00:30.500Z", now + 99_000)).toBe(30.5);
    expect(elapsed(moment, null, now + 99_000)).toBe(99);
    expect(elapsed(null, null, now)).toBeNull();
  });
});

describe("labels of an axis", () => {
  it("have the same decimals", () => {
    expect(plainTicks([0, 0.5, 1], 0.5)).toEqual(["0.0", "0.5", "1.0"]);
    expect(plainTicks([0, 2000, 4000], 2000)).toEqual(["0", "2,000", "4,000"]);
    expect(plainTicks([0, 2_500_000], 2_500_000)).toEqual(["0", "2.5M"]);
  });

  it("tell quarters apart, which have a decimal more", () => {
    expect(plainTicks([0, 0.25, 0.5], 0.25)).toEqual(["0.00", "0.25", "0.50"]);
    expect(plainTicks([0, 2.5, 5, 7.5], 2.5)).toEqual(["0.0", "2.5", "5.0", "7.5"]);
    expect(plainTicks([0, 25, 50], 25)).toEqual(["0", "25", "50"]);
    expect(secondTicks([0, 0.0025], 0.0025)).toEqual(["0.0 ms", "2.5 ms"]);
    expect(percentTicks([0.95, 0.975], 0.025)).toEqual(["95.0\u202f%", "97.5\u202f%"]);
    expect(byteRateTicks([0, 2.5e6], 2.5e6)).toEqual(["0.0 MB/s", "2.5 MB/s"]);
    expect(plainTicks([1_000_000, 1_025_000], 25_000)).toEqual(["1M", "1.025M"]);
  });

  it("have the same unit", () => {
    expect(secondTicks([0, 0.005, 0.01], 0.005)).toEqual(["0 ms", "5 ms", "10 ms"]);
    expect(percentTicks([0.5, 0.75], 0.25)).toEqual(["50\u202f%", "75\u202f%"]);
  });

  it("stand for themselves on a logarithmic scale", () => {
    expect(plainTicks([0.001, 0.1, 10], null)).toEqual(["0.001", "0.1", "10"]);
  });

  it("show running time as a clock does", () => {
    expect([0, 40, 725, 12_000].map(clock)).toEqual(["0:00", "0:40", "12:05", "3:20:00"]);
  });
});
