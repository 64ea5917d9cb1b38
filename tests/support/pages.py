"""What tests of HTML reports look at: the structure of a page, and its contrast in a browser."""

from html.parser import HTMLParser

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Open tags, ids and link targets, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.targets, self.outside = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        if found.get("href", "").startswith("#"):
            self.targets.append(found["href"][1:])
        self.outside += [value for key, value in attrs if key in ("src", "href") and not (value or "").startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


CONTRAST = """() => {
  const light = (text) => {
    const part = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...["body", ".soft", ".level", "figcaption", "summary"].map((name) => {
    const ink = light(getComputedStyle(document.querySelector(name)).color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  }));
}"""


OVERFLOWING = """[...document.querySelectorAll('svg.plot')].filter((plot) => {
  const frame = plot.closest('figure').getBoundingClientRect();
  return [...plot.querySelectorAll('text')].some((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left || box.right > frame.right;
  });
}).map((plot) => plot.getAttribute('aria-label'))"""
"""Charts with a label beyond their frame."""
