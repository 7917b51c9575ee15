// Before anything is drawn: the colours that this browser was told to use, else those of the system.
const chosenTheme = localStorage.getItem('theme');
if (chosenTheme) document.documentElement.dataset.theme = chosenTheme;
