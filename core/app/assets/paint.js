"use strict";
// Where a picture may change: painted on a canvas that has the picture's own pixels.

class Painter {
  constructor(canvas, brush) {
    Object.assign(this, { canvas, brush, context: canvas.getContext("2d", { willReadFrequently: true }), last: null });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && this.stroke(event));
  }

  resize(width, height) {
    Object.assign(this.canvas, { width, height });
  }

  get empty() {
    const { width, height } = this.canvas;
    return !this.context.getImageData(0, 0, width, height).data.some((value, i) => i % 4 === 3 && value > 127);
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  stroke({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / width;
    const at = [(clientX - left) * scale, (clientY - top) * (this.canvas.height / height)];
    const [fromX, fromY] = this.last ?? at;
    Object.assign(this.context, { lineCap: "round", lineWidth: this.width, strokeStyle: PAINT });
    this.context.beginPath();
    this.context.moveTo(fromX, fromY);
    this.context.lineTo(at[0] + 0.01, at[1]);
    this.context.stroke();
    this.rectangle(...at.map(Math.floor), ...at.map((place) => Math.floor(place) + 1)); // a pixel at least
    this.last = at;
  }

  /** Of the brush, in the picture's pixels: its value is a share of the picture in percent. */
  get width() {
    return Math.max(1, (Number(this.brush.value) / 100) * this.canvas.width);
  }

  rectangle(x0, y0, x1, y1) {
    this.context.fillStyle = PAINT;
    this.context.fillRect(x0, y0, x1 - x0, y1 - y0);
  }

  /** A PNG in base64 that is white where it is painted, as --region takes it. */
  region() {
    const { width, height } = this.canvas;
    const painted = this.context.getImageData(0, 0, width, height);
    for (let i = 0; i < painted.data.length; i += 4) {
      const level = painted.data[i + 3] > 127 ? 255 : 0;
      painted.data.set([level, level, level, 255], i);
    }
    const plain = Object.assign(document.createElement("canvas"), { width, height });
    plain.getContext("2d").putImageData(painted, 0, 0);
    return plain.toDataURL("image/png").split(",")[1];
  }
}

const PAINT = "#ff7a2f";
