"use strict";
// What the page can do where scripts run: an epsilon or radius to choose, and all groups to sort and search.
// It only writes text and geometry that the page brings along, and loads nothing.

function chooseLevel(section) {
  const slider = section.querySelector(".slider");
  if (!slider) return;
  const levels = JSON.parse(section.dataset.levels);
  const input = slider.querySelector("input");
  const mark = section.querySelector("[data-mark]");
  input.addEventListener("input", () => {
    const level = levels[Number(input.value)];
    for (const place of section.querySelectorAll("[data-show]")) {
      place.textContent = level.show[place.dataset.show];
    }
    input.setAttribute("aria-valuetext", level.show.threshold);
    for (const shape of section.querySelectorAll("[data-gauge]")) {
      const [x, width] = level.gauge[shape.dataset.gauge] || [0, 0];
      shape.setAttribute("x", x);
      shape.setAttribute("width", width);
    }
    if (mark && level.mark !== null) {
      mark.setAttribute("x1", level.mark);
      mark.setAttribute("x2", level.mark);
    }
  });
  slider.hidden = false;
}

function copy(text) {
  const area = document.createElement("textarea"); // works on a page opened as a file, too
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function browseGroups(box) {
  const perPage = 25;
  const groups = box.dataset.groups.split(";").map((text, number) => {
    const members = text.split(",").map(Number);
    return { number, leader: members[0], r: members.length, members };
  });
  const [search, back, next] = box.querySelectorAll(".groups-bar input, .groups-bar button");
  const place = box.querySelector(".groups-bar output");
  const body = box.querySelector("tbody");
  const heads = [...box.querySelectorAll("thead th")];
  const keys = ["number", "leader", "r"];
  let key = "number";
  let direction = 1;
  let page = 0;

  function row(group) {
    const line = document.createElement("tr");
    const first = document.createElement("th");
    first.scope = "row";
    first.textContent = group.number;
    line.append(first);
    for (const value of [group.leader, group.r.toLocaleString("en"), ""]) {
      line.insertCell().textContent = value;
    }
    const listed = group.members.slice(0, 12).join(", ");
    const more = group.r - 12;
    const cell = line.lastElementChild;
    cell.append(more > 0 ? `${listed} and ${more.toLocaleString("en")} more ` : `${listed} `);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy the prototypes of group ${group.number}`);
    button.addEventListener("click", () => {
      button.textContent = copy(group.members.join(", ")) ? "Copied" : "Failed";
    });
    cell.append(button);
    return line;
  }

  function show() {
    const wanted = (search.value.match(/\d+/g) || []).map(Number);
    const found = groups.filter(
      (group) => !wanted.length || wanted.some((index) => group.members.includes(index)),
    );
    found.sort((a, b) => direction * (a[key] - b[key]) || a.number - b.number);
    page = Math.max(0, Math.min(page, Math.ceil(found.length / perPage) - 1));
    const start = page * perPage;
    const end = Math.min(start + perPage, found.length);
    body.replaceChildren(...found.slice(start, end).map(row));
    const count = found.length.toLocaleString("en");
    place.value = found.length ? `${start + 1} to ${end} of ${count}` : "no group has it";
    back.disabled = page === 0;
    next.disabled = end === found.length;
    keys.forEach((name, at) => {
      const order = direction > 0 ? "ascending" : "descending";
      heads[at].setAttribute("aria-sort", name === key ? order : "none");
    });
  }

  keys.forEach((name, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heads[at].textContent;
    button.addEventListener("click", () => {
      direction = key === name ? -direction : 1;
      key = name;
      page = 0;
      show();
    });
    heads[at].replaceChildren(button);
  });
  search.addEventListener("input", () => {
    page = 0;
    show();
  });
  back.addEventListener("click", () => {
    page -= 1;
    show();
  });
  next.addEventListener("click", () => {
    page += 1;
    show();
  });
  box.querySelector(".groups-bar").hidden = false;
  box.querySelector(".groups-more")?.remove();
  show();
}

document.querySelectorAll("section[data-levels]").forEach(chooseLevel);
document.querySelectorAll("[data-groups]").forEach(browseGroups);
