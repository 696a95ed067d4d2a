// Boards whose states are few carry them as images: a slider moves between them without a kernel.
addEventListener("DOMContentLoaded", () => {
  for (const board of document.querySelectorAll(".vl-board")) {
    const states = JSON.parse(board.dataset.states), image = board.querySelector("img");
    const row = document.createElement("label"), said = document.createElement("output");
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: states.length - 1, step: 1, value: board.dataset.at });
    said.setAttribute("aria-live", "polite");
    row.append(board.dataset.name, slider, said);
    board.append(row);
    const show = () => {
      const [label, picture, alt] = states[slider.valueAsNumber];
      image.src = picture;
      image.alt = alt;
      said.textContent = label;
      slider.setAttribute("aria-valuetext", label);
    };
    slider.addEventListener("input", show);
    show();
  }
});
